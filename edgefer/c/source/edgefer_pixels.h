/* From a frame and a face's box to a network's input pixels, bit-exact with the host (edgefer/preprocess.py).
 *
 * No heap and no scratch memory: every pixel is computed from the frame when it is needed. Coordinates of boxes and sides
 * of frames must be below 2^20 in magnitude; this is not checked.
 */
#ifndef EDGEFER_PIXELS_H
#define EDGEFER_PIXELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EDGEFER_GRAY = 1, EDGEFER_BGR = 3, EDGEFER_RGBA = 4 }; /* a frame's pixel format; the value is the bytes per pixel */
enum { EDGEFER_AS_GRAY = 0, EDGEFER_AS_RGB = 1, EDGEFER_AS_BGR = 2 }; /* a network's input */

typedef struct {
  const uint8_t *pixels; /* rows without gaps */
  int32_t height, width, format;
} EdgeferFrame;

typedef struct { /* card.json's crop of the detector that found the box */
  double scale, dx, dy;
} EdgeferCrop;

/* The square to crop for a detector's box (left, top, right, bottom): left, top, side. */
void edgefer_square(const int32_t box[4], const EdgeferCrop *crop, int32_t square[3]);

/* One face as height * width * (1 or 3) bytes. level: cosine and sine of the head's roll, clockwise in the image,
 * to rotate it back; NULL crops without rotation. */
void edgefer_face(const EdgeferFrame *frame, const int32_t square[3], const double *level, int32_t height, int32_t width,
                  int32_t color, uint8_t *pixels);

/* A whole frame as gray, [height][width]: downscaled by area averaging, upscaled bilinearly. */
void edgefer_gray(const EdgeferFrame *frame, int32_t height, int32_t width, uint8_t *pixels);

/* uint8 [height][width] resized bilinearly, in integers: OpenCV's INTER_LINEAR_EXACT. */
void edgefer_resize(const uint8_t *gray, int32_t height, int32_t width, int32_t new_height, int32_t new_width,
                    uint8_t *pixels);

/* The face finder's input (devices/faces/canvas.py): a whole frame as gray, resized bilinearly; of a much larger frame,
 * only every n-th row and column is read. stride: bytes from one row of `pixels` to the next. */
void edgefer_shrunk(const EdgeferFrame *frame, int32_t height, int32_t width, int32_t stride, uint8_t *pixels);

/* The face refiner's input (devices/faces/own.py): every `step`-th row and column of a square (left, top, side) of a frame,
 * resized to side * side gray pixels. */
void edgefer_close_up(const EdgeferFrame *frame, const int32_t square[3], int32_t step, int32_t side, uint8_t *pixels);

#ifdef __cplusplus
}
#endif

#endif
