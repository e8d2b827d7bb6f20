#include "edgefer_faces.h"

#include "edgefer_pixels.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

enum { WINDOW_X = 1, WINDOW_Y = 2, STAGES = 3, FEATURES_AT = 4, STAGES_AT = 5 }; /* the cascade's first words */
#ifndef NEIGHBORS
#define NEIGHBORS 4
#endif
enum { CANDIDATES = 4096, FEATURE_WORDS = 6 };

typedef struct { int32_t x, y, width, height; } Rect;

typedef struct { /* one scale of the image */
  uint8_t *pixels;
  uint32_t *sums, *squares; /* of all pixels above and left: (height + 1) * (width + 1) */
  int32_t height, width;
} Layer;

static float float_of(uint32_t bits) {
  union { uint32_t bits; float value; } both;
  both.bits = bits;
  return both.value;
}

static int32_t rounded(double value) { /* ties to even */
  int32_t whole = (int32_t)value;
  double rest;
  if ((double)whole > value) whole--;
  rest = value - (double)whole;
  return whole + (rest > 0.5 || (rest == 0.5 && (whole & 1)));
}

static void sum_up(Layer *layer) {
  const int32_t step = layer->width + 1;
  int32_t y, x;
  for (x = 0; x < step; x++) layer->sums[x] = layer->squares[x] = 0;
  for (y = 0; y < layer->height; y++) {
    const uint8_t *line = layer->pixels + y * layer->width;
    uint32_t *sums = layer->sums + (y + 1) * step, *squares = layer->squares + (y + 1) * step;
    uint32_t sum = 0, square = 0;
    sums[0] = squares[0] = 0;
    for (x = 0; x < layer->width; x++) {
      sum += line[x];
      square += (uint32_t)line[x] * line[x];
      sums[x + 1] = sums[x + 1 - step] + sum;
      squares[x + 1] = squares[x + 1 - step] + square;
    }
  }
}

static int32_t area(const uint32_t *at, int32_t step, int32_t x, int32_t y, int32_t width, int32_t height) {
  const uint32_t *top = at + y * step + x, *bottom = top + height * step;
  return (int32_t)(top[0] - top[width] - bottom[0] + bottom[width]);
}

static float feature(const uint32_t *words, const uint32_t *at, int32_t step) {
  float value = 0;
  int rect;
  for (rect = 0; rect < 3; rect++, words += 2) {
    const uint32_t place = words[0];
    float part;
    if (!words[1]) break;
    part = float_of(words[1]) *
           (float)area(at, step, place & 255, place >> 8 & 255, place >> 16 & 255, (int32_t)(place >> 24));
    value = value + part;
  }
  return value;
}

/* 1 a face, 0 rejected by the first stage, -1 by a later one or for want of contrast. */
static int look(const uint32_t *cascade, const Layer *layer, int32_t x, int32_t y) {
  const int32_t step = layer->width + 1, wide = (int32_t)cascade[WINDOW_X] - 2, high = (int32_t)cascade[WINDOW_Y] - 2;
  const uint32_t *at = layer->sums + y * step + x, *words = cascade + cascade[STAGES_AT];
  const uint32_t *features = cascade + cascade[FEATURES_AT];
  const double sum = area(at, step, 1, 1, wide, high);
  const double squares = (uint32_t)area(layer->squares + y * step + x, step, 1, 1, wide, high);
  double variance = (double)(wide * high) * squares;
  float scale;
  uint32_t stage, tree;
  variance = variance - sum * sum;
  if (variance <= 0) return -1;
  scale = (float)(1.0 / __builtin_sqrt(variance));
  if (!((double)((float)(wide * high) * scale) < 0.1)) return -1;
  for (stage = 0; stage < cascade[STAGES]; stage++) {
    const uint32_t trees = words[0];
    const float threshold = float_of(words[1]);
    double total = 0;
    words += 2;
    for (tree = 0; tree < trees; tree++) {
      const uint32_t nodes = words[0];
      const uint32_t *node = words + 1, *leaves = node + 4 * nodes;
      int32_t next = 0;
      do {
        const uint32_t *here = node + 4 * next;
        const float value = feature(features + FEATURE_WORDS * here[0], at, step) * scale;
        next = (int32_t)(value < float_of(here[1]) ? here[2] : here[3]);
      } while (next > 0);
      total += float_of(leaves[-next]);
      words = leaves + nodes + 1;
    }
    if (total < threshold) return stage ? -1 : 0;
  }
  return 1;
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t magnitude(int32_t a) { return a < 0 ? -a : a; }

static int similar(const Rect *a, const Rect *b) {
  const double delta = 0.2 * (least(a->width, b->width) + least(a->height, b->height)) * 0.5;
  return magnitude(a->x - b->x) <= delta && magnitude(a->y - b->y) <= delta &&
         magnitude(a->x + a->width - b->x - b->width) <= delta && magnitude(a->y + a->height - b->y - b->height) <= delta;
}

static int32_t root(int32_t *parents, int32_t at) {
  while (parents[at] != at) at = parents[at] = parents[parents[at]];
  return at;
}

/* OpenCV's groupRectangles: what is alike becomes its mean; too few alike are no face, nor is what lies in a surer one. */
static int32_t group(Rect *rects, int32_t count, int32_t *parents, int32_t *weights, Rect *means) {
  int32_t i, j, groups = 0;
  for (i = 0; i < count; i++) {
    parents[i] = i;
    for (j = 0; j < i; j++)
      if (similar(rects + i, rects + j)) parents[root(parents, i)] = root(parents, j);
  }
  for (i = 0; i < count; i++) weights[i] = 0, means[i].x = means[i].y = means[i].width = means[i].height = 0;
  for (i = 0; i < count; i++) {
    Rect *mean = means + root(parents, i);
    weights[root(parents, i)]++;
    mean->x += rects[i].x, mean->y += rects[i].y, mean->width += rects[i].width, mean->height += rects[i].height;
  }
  for (i = 0; i < count; i++)
    if (weights[i] > NEIGHBORS) {
      const float share = 1.0f / (float)weights[i];
      rects[groups].x = rounded((float)means[i].x * share), rects[groups].y = rounded((float)means[i].y * share);
      rects[groups].width = rounded((float)means[i].width * share);
      rects[groups].height = rounded((float)means[i].height * share);
      weights[groups++] = weights[i];
    }
  for (i = 0, count = 0; i < groups; i++) {
    for (j = 0; j < groups; j++) {
      const int32_t dx = rounded(rects[j].width * 0.2), dy = rounded(rects[j].height * 0.2);
      if (i != j && rects[i].x >= rects[j].x - dx && rects[i].y >= rects[j].y - dy &&
          rects[i].x + rects[i].width <= rects[j].x + rects[j].width + dx &&
          rects[i].y + rects[i].height <= rects[j].y + rects[j].height + dy && weights[j] > weights[i])
        break;
    }
    if (j == groups) means[count++] = rects[i];
  }
  return count;
}

uint32_t edgefer_faces_bytes(int32_t height, int32_t width) {
  const uint32_t pixels = ((uint32_t)(height * width) + 7) & ~7u;
  return pixels + 8 * (uint32_t)((height + 1) * (width + 1)) + CANDIDATES * (2 * sizeof(Rect) + 8);
}

int32_t edgefer_faces(const uint32_t *cascade, const uint8_t *gray, int32_t height, int32_t width, int32_t smallest,
                      void *workspace, int32_t *boxes, int32_t limit) {
  Rect *candidates = (Rect *)workspace, *means = candidates + CANDIDATES;
  int32_t *parents = (int32_t *)(means + CANDIDATES), *weights = parents + CANDIDATES;
  const int32_t wide = (int32_t)cascade[WINDOW_X], high = (int32_t)cascade[WINDOW_Y];
  int32_t count = 0, i;
  double factor;
  Layer layer;
  layer.sums = (uint32_t *)(weights + CANDIDATES);
  layer.squares = layer.sums + (height + 1) * (width + 1);
  layer.pixels = (uint8_t *)(layer.squares + (height + 1) * (width + 1));
  for (factor = 1; rounded(wide * factor) <= width && rounded(high * factor) <= height; factor = factor * 1.1) {
    const double scale = (float)factor;
    const int32_t step = (float)factor >= 2 ? 1 : 2, side_x = rounded(wide * scale), side_y = rounded(high * scale);
    int32_t x, y;
    if (side_x < smallest || side_y < smallest) continue;
    layer.height = rounded((float)height / (float)factor), layer.width = rounded((float)width / (float)factor);
    edgefer_resize(gray, height, width, layer.height, layer.width, layer.pixels);
    sum_up(&layer);
    for (y = 0; y <= layer.height - high; y += step)
      for (x = 0; x <= layer.width - wide; x += step) {
        const int found = look(cascade, &layer, x, y);
        if (found > 0 && count < CANDIDATES) {
          Rect *rect = candidates + count++;
          rect->x = rounded((float)x * (float)factor), rect->y = rounded((float)y * (float)factor);
          rect->width = side_x, rect->height = side_y;
        }
        if (found == 0) x += step;
      }
  }
  count = group(candidates, count, parents, weights, means);
  for (i = 0; i < count && i < limit; i++) {
    const Rect *rect = means + i;
    boxes[4 * i] = rect->x < 0 ? 0 : rect->x, boxes[4 * i + 1] = rect->y < 0 ? 0 : rect->y;
    boxes[4 * i + 2] = least(rect->x + rect->width, width), boxes[4 * i + 3] = least(rect->y + rect->height, height);
  }
  return i;
}
