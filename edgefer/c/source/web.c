/* What WebAssembly needs beside the kernels: memory, and a view of a frame. */
#include "edgefer_faces.h"
#include "edgefer_net.h"
#include "edgefer_pixels.h"

#include <stddef.h>

extern unsigned char __heap_base;
static uint32_t next;

/* Bytes aligned to 16 that stay until the page is closed; 0 where the browser has no more. */
void *web_allocate(uint32_t bytes) {
  const uint32_t begin = ((next ? next : (uint32_t)&__heap_base) + 15) & ~15u, end = begin + bytes;
  const uint32_t have = (uint32_t)__builtin_wasm_memory_size(0) << 16;
  if (end < begin) return 0;
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + 65535) >> 16) == (size_t)-1) return 0;
  next = end;
  return (void *)begin;
}

void web_face(const uint8_t *pixels, int32_t height, int32_t width, int32_t format, const int32_t *box, double scale,
              double dx, double dy, int32_t out_height, int32_t out_width, int32_t color, uint8_t *out) {
  const EdgeferFrame frame = {pixels, height, width, format};
  const EdgeferCrop crop = {scale, dx, dy};
  int32_t square[3];
  edgefer_square(box, &crop, square);
  edgefer_face(&frame, square, 0, out_height, out_width, color, out);
}

void web_gray(const uint8_t *pixels, int32_t height, int32_t width, int32_t format, int32_t out_height,
              int32_t out_width, uint8_t *out) {
  const EdgeferFrame frame = {pixels, height, width, format};
  edgefer_gray(&frame, out_height, out_width, out);
}
