/* A plugin for qemu-user 7 and later: counts the instructions that a program executes, and writes "#COUNT" to stderr whenever
 * it calls getppid(), which programs have no other reason to call.
 *
 *   cc -O2 -shared -fPIC -DPLUGIN_API=1 -o count.so count.c     PLUGIN_API: 1 for qemu before 9.0, else 2
 *
 * Debian packages no qemu-plugin.h, so what is used of it is declared here. Each thread counts for itself. */
#include <inttypes.h>
#include <stdio.h>

#define GETPPID 173 /* on aarch64 */
#define THREADS 256

struct qemu_plugin_tb;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(uint64_t id, struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*)(unsigned thread, void *data), int flags,
                                          void *data);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, void (*)(uint64_t id, unsigned thread, int64_t number, uint64_t,
                                                                uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                                uint64_t, uint64_t));

int qemu_plugin_version = PLUGIN_API;
static uint64_t executed[THREADS];

static void on_run(unsigned thread, void *instructions) { executed[thread % THREADS] += (uintptr_t)instructions; }

static void on_block(uint64_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_run, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void on_call(uint64_t id, unsigned thread, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                    uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)thread, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != GETPPID)
        return;
    uint64_t sum = 0;
    for (int one = 0; one < THREADS; one++)
        sum += executed[one];
    fprintf(stderr, "#%" PRIu64 "\n", sum);
}

int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments)
{
    (void)info, (void)count, (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
