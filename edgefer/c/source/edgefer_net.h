/* Runs an int8 network that `edgefer export` wrote: uint8 pixels in, int8 answers out, the same on every target.
 *
 * C99 without heap, libc or float division. A network is one constant of 32-bit words, little-endian, aligned to 16
 * bytes; it says how many bytes of arena it needs (EDGEFER_ARENA_BYTES in network.h, aligned to 16 bytes as well).
 * Real logit = EDGEFER_OUTPUT_SCALE * (answer - EDGEFER_OUTPUT_ZERO); the largest answer is the label.
 */
#ifndef EDGEFER_NET_H
#define EDGEFER_NET_H

#include <stdint.h>

enum { EDGEFER_OK = 0, EDGEFER_NOT_A_NETWORK = 1, EDGEFER_DAMAGED = 2 };

/* Whether `words` 32-bit words hold a whole network: EDGEFER_OK, or what is wrong. Sees a single changed bit. */
int edgefer_check(const uint32_t *network, uint32_t words);

uint32_t edgefer_crc32(const uint8_t *bytes, uint32_t count);

/* pixels: height * width * channels bytes; answers: as many as the network has labels, or all values of its outputs, one
 * output after the other. */
void edgefer_run(const uint32_t *network, const uint8_t *pixels, void *arena, int8_t *answers);

uint32_t edgefer_arena_bytes(const uint32_t *network);
uint32_t edgefer_input_bytes(const uint32_t *network);
uint32_t edgefer_output_bytes(const uint32_t *network);

/* Makes a network in RAM, which was checked before, take images of another size, no larger than the one it was exported for.
 * For networks of convolutions only, whose layers' heights and widths all divide into whole numbers at both sizes. */
void edgefer_resize_network(uint32_t *network, int32_t height, int32_t width);

/* Runs the first `layers` layers and returns where the last of them wrote its `bytes`, for tests of inner tensors. */
const int8_t *edgefer_inner(const uint32_t *network, const uint8_t *pixels, void *arena, uint32_t layers, uint32_t *bytes);

#endif
