/* For targets without a C library: compilers emit calls of these functions even where the source has none. */
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
