/* What a self-test needs of the place it runs in: one file per place implements it (platform_host.c and others). */
#ifndef EDGEFER_PLATFORM_H
#define EDGEFER_PLATFORM_H

#include <stdint.h>

void platform_print(const char *text);
uint32_t platform_ticks(void); /* of the processor's clock, wrapping around; always 0 where none can be read */

#endif
