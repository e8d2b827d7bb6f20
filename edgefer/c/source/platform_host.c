/* The self-test on a desktop or a Linux board. */
#include "platform.h"

#include <stdio.h>

void platform_print(const char *text) { fputs(text, stdout); }
uint32_t platform_ticks(void) { return 0; }
