#include "edgefer_pixels.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

/* The region of a frame that is resized to a network's input: a square, rotated or not, or the whole frame. step: every
 * step-th row and column is read, if it is not rotated. */
typedef struct {
  EdgeferFrame frame;
  int32_t left, top, height, width, step;
  int turned;
  double turn[6]; /* maps the view's pixel (x, y, 1) to the frame: a matrix of two rows */
} View;

/* Rounds to the nearest integer, ties to even; |value| < 2^31. */
static int32_t rounded(double value) {
  int32_t whole = (int32_t)value;
  double rest;
  if ((double)whole > value) whole--;
  rest = value - (double)whole;
  if (rest > 0.5 || (rest == 0.5 && (whole & 1))) whole++;
  return whole;
}

static int32_t within(int32_t at, int32_t size) { return at < 0 ? 0 : at >= size ? size - 1 : at; }

static const uint8_t *at(const EdgeferFrame *frame, int32_t y, int32_t x) {
  return frame->pixels + ((int64_t)within(y, frame->height) * frame->width + within(x, frame->width)) * frame->format;
}

/* One pixel of the frame as blue, green, red: three equal values if the frame is gray. */
static void read_frame(const EdgeferFrame *frame, int32_t y, int32_t x, int32_t bgr[3]) {
  const uint8_t *pixel = at(frame, y, x);
  if (frame->format == EDGEFER_GRAY) bgr[0] = bgr[1] = bgr[2] = pixel[0];
  else if (frame->format == EDGEFER_BGR) bgr[0] = pixel[0], bgr[1] = pixel[1], bgr[2] = pixel[2];
  else bgr[0] = pixel[2], bgr[1] = pixel[1], bgr[2] = pixel[0];
}

/* OpenCV's warpAffine, INTER_LINEAR with BORDER_REPLICATE: coordinates in 1/32 of a pixel. */
static void read_turned(const View *view, int32_t y, int32_t x, int32_t bgr[3]) {
  const double *t = view->turn;
  double row_x = t[1] * y, row_y = t[4] * y;
  int32_t in_x, in_y, fx, fy, channel, corner[4][3];
  row_x = row_x + t[2];
  row_y = row_y + t[5];
  in_x = (rounded(row_x * 1024) + 16 + rounded(t[0] * x * 1024)) >> 5;
  in_y = (rounded(row_y * 1024) + 16 + rounded(t[3] * x * 1024)) >> 5;
  fx = in_x & 31, fy = in_y & 31, in_x >>= 5, in_y >>= 5;
  read_frame(&view->frame, in_y, in_x, corner[0]);
  read_frame(&view->frame, in_y, in_x + 1, corner[1]);
  read_frame(&view->frame, in_y + 1, in_x, corner[2]);
  read_frame(&view->frame, in_y + 1, in_x + 1, corner[3]);
  for (channel = 0; channel < 3; channel++) {
    const int32_t upper = (32 - fx) * corner[0][channel] + fx * corner[1][channel];
    const int32_t lower = (32 - fx) * corner[2][channel] + fx * corner[3][channel];
    bgr[channel] = ((32 - fy) * upper + fy * lower + 512) >> 10;
  }
}

/* One pixel of a view in the network's channels; returns the number of channels. */
static int32_t read_view(const View *view, int32_t y, int32_t x, int32_t color, int32_t values[3]) {
  int32_t bgr[3];
  if (view->turned) read_turned(view, y, x, bgr);
  else read_frame(&view->frame, view->top + y * view->step, view->left + x * view->step, bgr);
  if (color == EDGEFER_AS_GRAY) {
    values[0] = view->frame.format == EDGEFER_GRAY ? bgr[0] : (bgr[2] * 9798 + bgr[1] * 19235 + bgr[0] * 3735 + 16384) >> 15;
    return 1;
  }
  values[0] = bgr[color == EDGEFER_AS_RGB ? 2 : 0];
  values[1] = bgr[1];
  values[2] = bgr[color == EDGEFER_AS_RGB ? 0 : 2];
  return 3;
}

/* The length of the overlap of pixel `pixel` of `size` with cell `number` of `parts`, in units of 1/parts of a pixel. */
static int64_t overlap(int64_t pixel, int64_t parts, int64_t number, int64_t size) {
  const int64_t begin = pixel * parts > number * size ? pixel * parts : number * size;
  const int64_t end = (pixel + 1) * parts < (number + 1) * size ? (pixel + 1) * parts : (number + 1) * size;
  return end - begin;
}

/* Area averaging: each output pixel is the mean of the area it covers, rounded half up. */
static void shrink(const View *view, int32_t height, int32_t width, int32_t color, uint8_t *out) {
  const int64_t area = (int64_t)view->height * view->width;
  int32_t y, x, row, column, c, count = 1, values[3];
  for (y = 0; y < height; y++) {
    const int32_t first = (int32_t)((int64_t)y * view->height / height);
    for (x = 0; x < width; x++) {
      const int32_t begin = (int32_t)((int64_t)x * view->width / width);
      int64_t sums[3] = {0, 0, 0};
      for (row = first; (int64_t)row * height < (int64_t)(y + 1) * view->height; row++) {
        const int64_t down = overlap(row, height, y, view->height);
        for (column = begin; (int64_t)column * width < (int64_t)(x + 1) * view->width; column++) {
          const int64_t part = down * overlap(column, width, x, view->width);
          count = read_view(view, row, column, color, values);
          for (c = 0; c < count; c++) sums[c] += part * values[c];
        }
      }
      for (c = 0; c < count; c++) *out++ = (uint8_t)((2 * sums[c] + area) / (2 * area));
    }
  }
}

/* The position of an output pixel in the input: the pixel before it, and in `part` the distance from that in 1/256. */
static int32_t between(int32_t number, int32_t size, int32_t new_size, int32_t *part) {
  const double scale = 1.0 / ((double)new_size / (double)size);
  double place = scale * ((double)number + 0.5);
  int32_t whole;
  place = place - 0.5;
  if (place < 0) return *part = 0, 0;
  whole = (int32_t)place;
  if (whole >= size - 1) return *part = 0, size - 1;
  *part = rounded((place - (double)whole) * 256);
  return whole;
}

/* Bilinear interpolation. stride: bytes from one of `rows` to the next. */
static void interpolate(const View *view, int32_t height, int32_t width, int32_t color, int32_t stride, uint8_t *rows) {
  int32_t y, x, c, count, down, right, corner[4][3];
  for (y = 0; y < height; y++, rows += stride) {
    uint8_t *out = rows;
    const int32_t row = between(y, view->height, height, &down);
    const int32_t next_row = row + 1 < view->height ? row + 1 : row;
    for (x = 0; x < width; x++) {
      const int32_t column = between(x, view->width, width, &right);
      const int32_t next = column + 1 < view->width ? column + 1 : column;
      count = read_view(view, row, column, color, corner[0]);
      read_view(view, row, next, color, corner[1]);
      read_view(view, next_row, column, color, corner[2]);
      read_view(view, next_row, next, color, corner[3]);
      for (c = 0; c < count; c++) {
        const int32_t upper = (256 - right) * corner[0][c] + right * corner[1][c];
        const int32_t lower = (256 - right) * corner[2][c] + right * corner[3][c];
        *out++ = (uint8_t)(((256 - down) * upper + down * lower + 32768) >> 16);
      }
    }
  }
}

/* edgefer.preprocess.prepare; at equal size, no pixel changes. */
static void prepare(const View *view, int32_t height, int32_t width, int32_t color, uint8_t *out) {
  if ((int64_t)view->height * view->width > (int64_t)height * width) shrink(view, height, width, color, out);
  else interpolate(view, height, width, color, width * (color == EDGEFER_AS_GRAY ? 1 : 3), out);
}

void edgefer_square(const int32_t box[4], const EdgeferCrop *crop, int32_t square[3]) {
  const double side = (double)((box[2] - box[0]) + (box[3] - box[1])) / 2;
  const double half = crop->scale * side / 2;
  double x = crop->dx * side, y = crop->dy * side;
  x = (double)(box[0] + box[2]) / 2 + x;
  y = (double)(box[1] + box[3]) / 2 + y;
  square[0] = rounded(x - half);
  square[1] = rounded(y - half);
  square[2] = rounded(2 * half);
  if (square[2] < 1) square[2] = 1;
}

void edgefer_face(const EdgeferFrame *frame, const int32_t square[3], const double *level, int32_t height, int32_t width,
                  int32_t color, uint8_t *pixels) {
  View view;
  view.frame = *frame;
  view.left = square[0], view.top = square[1], view.height = view.width = square[2], view.step = 1;
  view.turned = level != 0;
  if (level) {
    const double cosine = level[0], sine = level[1], middle = (double)(square[2] - 1) / 2;
    double x = 1 - cosine, y = 1 - cosine;
    x = x + sine, y = y - sine;
    x = middle * x, y = middle * y;
    view.turn[0] = cosine, view.turn[1] = -sine, view.turn[2] = square[0] + x;
    view.turn[3] = sine, view.turn[4] = cosine, view.turn[5] = square[1] + y;
  }
  prepare(&view, height, width, color, pixels);
}

void edgefer_gray(const EdgeferFrame *frame, int32_t height, int32_t width, uint8_t *pixels) {
  View view;
  view.frame = *frame;
  view.left = view.top = 0, view.height = frame->height, view.width = frame->width, view.step = 1;
  view.turned = 0;
  prepare(&view, height, width, EDGEFER_AS_GRAY, pixels);
}

void edgefer_resize(const uint8_t *gray, int32_t height, int32_t width, int32_t new_height, int32_t new_width,
                    uint8_t *pixels) {
  View view;
  view.frame.pixels = gray, view.frame.height = height, view.frame.width = width, view.frame.format = EDGEFER_GRAY;
  view.left = view.top = 0, view.height = height, view.width = width, view.step = 1;
  view.turned = 0;
  interpolate(&view, new_height, new_width, EDGEFER_AS_GRAY, new_width, pixels);
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

void edgefer_shrunk(const EdgeferFrame *frame, int32_t height, int32_t width, int32_t stride, uint8_t *pixels) {
  const int32_t step = least(frame->height / (2 * height), frame->width / (2 * width));
  View view;
  view.frame = *frame;
  view.step = step > 1 ? step : 1;
  view.left = view.top = view.step / 2;
  view.height = (frame->height - view.top + view.step - 1) / view.step;
  view.width = (frame->width - view.left + view.step - 1) / view.step;
  view.turned = 0;
  interpolate(&view, height, width, EDGEFER_AS_GRAY, stride, pixels);
}

void edgefer_close_up(const EdgeferFrame *frame, const int32_t square[3], int32_t step, int32_t side, uint8_t *pixels) {
  View view;
  view.frame = *frame;
  view.step = step;
  view.left = square[0] + step / 2, view.top = square[1] + step / 2;
  view.height = view.width = square[2] / step;
  view.turned = 0;
  interpolate(&view, side, side, EDGEFER_AS_GRAY, side, pixels);
}
