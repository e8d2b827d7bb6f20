/* Runs an int8 network that `edgefer export` wrote: uint8 pixels in, int8 answers out, the same on every target.
 *
 * C99 without heap, libc or float division. A network is one constant of 32-bit words, little-endian, aligned to 16
 * bytes; EDGEFER_ARENA_BYTES in network.h is the arena it needs, aligned to 16 bytes as well.
 * Real logit = EDGEFER_OUTPUT_SCALE * (answer - EDGEFER_OUTPUT_ZERO); the largest answer is the label.
 */
#ifndef EDGEFER_NET_H
#define EDGEFER_NET_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EDGEFER_OK = 0, EDGEFER_NOT_A_NETWORK = 1, EDGEFER_DAMAGED = 2 };

/* Checks that `words` 32-bit words are a complete network: EDGEFER_OK, or the error. Detects any single changed bit. */
int edgefer_check(const uint32_t *network, uint32_t words);

uint32_t edgefer_crc32(const uint8_t *bytes, uint32_t count);

/* pixels: height * width * channels bytes; answers: as many as the network has labels, or all values of its outputs, one
 * output after the other. */
void edgefer_run(const uint32_t *network, const uint8_t *pixels, void *arena, int8_t *answers);

uint32_t edgefer_arena_bytes(const uint32_t *network);
uint32_t edgefer_input_bytes(const uint32_t *network);
uint32_t edgefer_output_bytes(const uint32_t *network);

/* Changes a network in RAM, after edgefer_check, to another input size, no larger than the one it was exported for. Only
 * for fully convolutional networks whose layers' heights and widths are integers at both sizes. */
void edgefer_resize_network(uint32_t *network, int32_t height, int32_t width);

/* Runs the first `layers` layers and returns the output of the last one, of `bytes` bytes, for tests of inner tensors. */
const int8_t *edgefer_inner(const uint32_t *network, const uint8_t *pixels, void *arena, uint32_t layers, uint32_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
