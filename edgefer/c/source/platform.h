/* Platform interface of the self-test, implemented by one file per platform (platform_host.c and others). */
#ifndef EDGEFER_PLATFORM_H
#define EDGEFER_PLATFORM_H

#include <stdint.h>

void platform_print(const char *text);
uint32_t platform_ticks(void); /* of the processor's clock, wrapping around; always 0 where none can be read */

#endif
