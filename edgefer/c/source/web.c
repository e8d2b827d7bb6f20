/* What WebAssembly needs beside the kernels: memory, and calls without structs. */
#include "edgefer_net.h"
#include "edgefer_pixels.h"

#include <stddef.h>

extern unsigned char __heap_base;
static uint32_t next;

/* Allocates memory, aligned to 16 bytes, that is never freed; 0 if the browser has no more. */
void *web_allocate(uint32_t bytes) {
  const uint32_t begin = ((next ? next : (uint32_t)&__heap_base) + 15) & ~15u, end = begin + bytes;
  const uint32_t have = (uint32_t)__builtin_wasm_memory_size(0) << 16;
  if (end < begin) return 0;
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + 65535) >> 16) == (size_t)-1) return 0;
  next = end;
  return (void *)begin;
}

/* cosine, sine: of the head's roll; a sine of 0 crops without rotation. */
void web_face(const uint8_t *pixels, int32_t height, int32_t width, int32_t format, const int32_t *box, double scale,
              double dx, double dy, double cosine, double sine, int32_t out_height, int32_t out_width, int32_t color,
              uint8_t *out) {
  const EdgeferFrame frame = {pixels, height, width, format};
  const EdgeferCrop crop = {scale, dx, dy};
  const double level[2] = {cosine, sine};
  int32_t square[3];
  edgefer_square(box, &crop, square);
  edgefer_face(&frame, square, sine ? level : 0, out_height, out_width, color, out);
}

void web_shrunk(const uint8_t *pixels, int32_t height, int32_t width, int32_t format, int32_t out_height, int32_t out_width,
                int32_t stride, uint8_t *out) {
  const EdgeferFrame frame = {pixels, height, width, format};
  edgefer_shrunk(&frame, out_height, out_width, stride, out);
}

void web_close_up(const uint8_t *pixels, int32_t height, int32_t width, int32_t format, int32_t left, int32_t top,
                  int32_t side, int32_t step, int32_t out_side, uint8_t *out) {
  const EdgeferFrame frame = {pixels, height, width, format};
  const int32_t square[3] = {left, top, side};
  edgefer_close_up(&frame, square, step, out_side, out);
}
