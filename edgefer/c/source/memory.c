/* Where there is no C library: a compiler may call these even for C that does not. */
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t count) {
  unsigned char *out = to;
  const unsigned char *in = from;
  while (count--) *out++ = *in++;
  return to;
}

void *memset(void *to, int value, size_t count) {
  unsigned char *out = to;
  while (count--) *out++ = (unsigned char)value;
  return to;
}
