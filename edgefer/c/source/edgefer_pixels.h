/* From a frame and a face's box to the pixels a network takes, bit for bit as on the host (edgefer/preprocess.py).
 *
 * No heap and no scratch memory: every pixel is computed from the frame when it is needed.
 */
#ifndef EDGEFER_PIXELS_H
#define EDGEFER_PIXELS_H

#include <stdint.h>

enum { EDGEFER_GRAY = 1, EDGEFER_BGR = 3, EDGEFER_RGBA = 4 }; /* a frame's pixels; the number is their bytes */
enum { EDGEFER_AS_GRAY = 0, EDGEFER_AS_RGB = 1, EDGEFER_AS_BGR = 2 }; /* a network's */

typedef struct {
  const uint8_t *pixels; /* rows without gaps */
  int32_t height, width, format;
} EdgeferFrame;

typedef struct { /* card.json's crop of the detector that found the box */
  double scale, dx, dy;
} EdgeferCrop;

/* The square that a box (left, top, right, bottom) stands for: left, top, side. */
void edgefer_square(const int32_t box[4], const EdgeferCrop *crop, int32_t square[3]);

/* One face as height * width * (1 or 3) bytes. level: cosine and sine of the angle by which the head is rolled, clockwise
 * in the picture, to turn it back; NULL to cut the square as it is. */
void edgefer_face(const EdgeferFrame *frame, const int32_t square[3], const double *level, int32_t height, int32_t width,
                  int32_t color, uint8_t *pixels);

/* A whole frame as gray, [height][width]: shrunk by means of areas, enlarged linearly. */
void edgefer_gray(const EdgeferFrame *frame, int32_t height, int32_t width, uint8_t *pixels);

/* uint8 [height][width] enlarged or shrunk linearly, in whole numbers: OpenCV's INTER_LINEAR_EXACT. */
void edgefer_resize(const uint8_t *gray, int32_t height, int32_t width, int32_t new_height, int32_t new_width,
                    uint8_t *pixels);

/* What edgefer's face finder sees (devices/faces/canvas.py): a whole frame as gray, of a much larger one every so many rows and
 * columns, resized linearly. stride: bytes from one row of `pixels` to the next. */
void edgefer_shrunk(const EdgeferFrame *frame, int32_t height, int32_t width, int32_t stride, uint8_t *pixels);

/* What its refiner sees (devices/faces/own.py): a square (left, top, side) of a frame, every `step` rows and columns of it, as
 * gray of side * side pixels. */
void edgefer_close_up(const EdgeferFrame *frame, const int32_t square[3], int32_t step, int32_t side, uint8_t *pixels);

#endif
