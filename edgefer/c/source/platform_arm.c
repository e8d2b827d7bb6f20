/* The self-test on a bare-metal Cortex-M: vectors, memory, and a debugger's console (semihosting).
 *
 * On a board without a debugger the BKPT instruction stops the processor: let platform_print write to your UART there.
 */
#include "platform.h"

int main(void);
extern uint32_t data_image[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];

#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, value */
#define CPACR (*(volatile uint32_t *)0xE000ED88)
static volatile uint32_t wraps;

static uint32_t semihosting(uint32_t call, const void *argument) {
  register uint32_t r0 __asm__("r0") = call;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

void platform_print(const char *text) { semihosting(0x04, text); }

uint32_t platform_ticks(void) {
  uint32_t before, value;
  do {
    before = wraps;
    value = SYSTICK[2];
  } while (before != wraps);
  return (before << 24) + (0xFFFFFF - value);
}

static void finish(int code) {
  const uint32_t reason[2] = {0x20026, (uint32_t)code}; /* ADP_Stopped_ApplicationExit, the exit code */
  semihosting(0x20, reason);
  for (;;) {}
}

static void reset(void) {
  uint32_t *to = data_start;
  const uint32_t *from = data_image;
  while (to < data_end) *to++ = *from++;
  for (to = bss_start; to < bss_end;) *to++ = 0;
#ifdef __ARM_FP
  CPACR |= 0xFu << 20;
  __asm__ volatile("dsb\n isb");
#endif
  SYSTICK[1] = 0xFFFFFF;
  SYSTICK[2] = 0;
  SYSTICK[0] = 7;
  finish(main());
}

static void fault(void) {
  platform_print("FAIL: the processor faulted\n");
  finish(3);
}

static void tick(void) { wraps++; }

typedef struct {
  uint32_t *stack;
  void (*handlers[15])(void);
} Vectors;
__attribute__((section(".vectors"), used)) const Vectors vectors = {
    stack_top, {reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, tick}};
