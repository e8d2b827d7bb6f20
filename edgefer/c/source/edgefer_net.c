#include "edgefer_net.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "networks are written for little-endian processors"
#endif
/* GCC has these intrinsics since version 10. */
#if defined(__ARM_FEATURE_SIMD32) && defined(__arm__) && (defined(__clang__) || __GNUC__ >= 10)
#include <arm_acle.h>
#define SMLAD 1
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#define SIMD128 1
#endif

/* ---- the format of a network ---- */

#define MAGIC 0x314E4645u /* "EFN1" */
enum { WORDS = 1, CRC = 2, ARENA = 3, LAYERS = 4, INPUT_AT = 5, INPUT_BYTES = 6, OUTPUT_BYTES = 8 };
enum { INPUT_HEIGHT = 11, INPUT_WIDTH = 12, INPUT_DEPTH = 13 };
enum { INPUT_TABLE = 14 }; /* holds the offset of the input's table, in words; 0 if the input is pixel - 128 */
enum { HEADER_WORDS = 16, LAYER_WORDS = 32 };

enum {
  CONV_2D = 1, DEPTHWISE_CONV_2D, FULLY_CONNECTED, ADD, MEAN, MAX_POOL_2D, AVERAGE_POOL_2D, RESHAPE, PAD, RELU, RELU6
};

/* A layer's record in the network. in, in2, out, scratch: offsets in the arena, in bytes. weights, bias, multipliers:
 * offsets in the network, in words. answers: offset of its output among the answers, counted from 1; 0 if it is no output
 * of the network. */
typedef struct {
  int32_t kind, in, in2, out, scratch;
  int32_t in_height, in_width, in_depth, height, width, depth;
  int32_t kernel_y, kernel_x, stride_y, stride_x, step_y, step_x, before_y, before_x;
  int32_t zero_in, zero_in2, zero_out, low, high;
  int32_t weights, bias, multipliers, row_bytes;
  int32_t fixed[3], answers;
} Layer;

typedef char layer_size_is_right[sizeof(Layer) == 4 * LAYER_WORDS ? 1 : -1];

typedef struct {
  const Layer *layer;
  const int8_t *in, *in2;
  int8_t *out;
  int16_t *scratch;
  const int8_t *weights;
  const int32_t *bias;
  const uint32_t *multipliers;
} Job;

static float float_of(uint32_t bits) {
  union { uint32_t bits; float value; } both;
  both.bits = bits;
  return both.value;
}

/* A value rounded to the nearest integer, ties to even, plus `zero`, clamped. The clamp comes before the addition that
 * rounds, so that no compiler can fuse it with a multiplication. */
static int8_t nearest(float value, int32_t zero, const Layer *layer) {
  union { float value; uint32_t bits; } both;
  const float low = (float)(layer->low - zero), high = (float)(layer->high - zero);
  if (value < low) value = low;
  if (value > high) value = high;
  both.value = value + 12582912.0f; /* 1.5 * 2^23: the last bit of a float is then 1 */
  return (int8_t)((int32_t)(both.bits - 0x4B400000u) + zero);
}

/* sum * multiplier, rounded, plus the zero point, clamped. */
static int8_t quantum(int32_t sum, uint32_t multiplier, const Layer *layer) {
  return nearest((float)sum * float_of(multiplier), layer->zero_out, layer);
}

static int8_t clamped(int32_t value, const Layer *layer) {
  return (int8_t)(value < layer->low ? layer->low : value > layer->high ? layer->high : value);
}

/* ---- convolution ----
 * Computes four output positions at a time: their windows of the input are copied to four columns of int16 (x - zero_in; 0
 * outside the image), interleaved in groups of GROUP values, so that all four are read through one pointer.
 */

enum { COLUMNS = 4 };
#ifdef SIMD128
enum { GROUP = 8 };
#define PLACE(k) (k)
#else
enum { GROUP = 4 };
#ifdef SMLAD
#define PLACE(k) (((k) & 1) << 1 | (k) >> 1) /* 0 2 1 3: SXTB16 extracts every second byte of a word */
#else
#define PLACE(k) (k)
#endif
#endif

/* Appends `count` values to a column that already has `k`. from: null if the window is outside the image. */
static void fill(int16_t *column, int32_t k, const int8_t *from, int32_t count, int32_t zero) {
  int16_t *group = column + k / GROUP * (COLUMNS * GROUP);
  int32_t at = k % GROUP, i, j;
  for (i = 0; i < count;) {
    if (at == 0 && count - i >= GROUP) {
      for (j = 0; j < GROUP; j++) group[PLACE(j)] = from ? (int16_t)(from[i + j] - zero) : 0;
      i += GROUP;
      group += COLUMNS * GROUP;
    } else {
      group[PLACE(at)] = from ? (int16_t)(from[i] - zero) : 0;
      i++;
      if (++at == GROUP) at = 0, group += COLUMNS * GROUP;
    }
  }
}

static void fill_column(const Job *job, int16_t *column, int32_t y, int32_t x) {
  const Layer *l = job->layer;
  const int32_t top = y * l->stride_y - l->before_y, left = x * l->stride_x - l->before_x;
  int32_t k = 0, row, at;
  for (row = 0; row < l->kernel_y; row++) {
    const int32_t in_y = top + row * l->step_y;
    const int within = in_y >= 0 && in_y < l->in_height;
    const int8_t *line = job->in + (within ? in_y : 0) * l->in_width * l->in_depth;
    if (within && l->step_x == 1 && left >= 0 && left + l->kernel_x <= l->in_width) {
      fill(column, k, line + left * l->in_depth, l->kernel_x * l->in_depth, l->zero_in);
      k += l->kernel_x * l->in_depth;
      continue;
    }
    for (at = 0; at < l->kernel_x; at++, k += l->in_depth) {
      const int32_t in_x = left + at * l->step_x;
      fill(column, k, within && in_x >= 0 && in_x < l->in_width ? line + in_x * l->in_depth : 0, l->in_depth, l->zero_in);
    }
  }
  fill(column, k, 0, l->row_bytes - k, 0);
}

#ifdef SIMD128

static int32_t total(v128_t four) {
  return wasm_i32x4_extract_lane(four, 0) + wasm_i32x4_extract_lane(four, 1) + wasm_i32x4_extract_lane(four, 2) +
         wasm_i32x4_extract_lane(four, 3);
}

static void products(const int16_t *columns, const int8_t *weights, int32_t count, int32_t *sums) {
  v128_t a = wasm_i32x4_const(0, 0, 0, 0), b = a, c = a, d = a;
  int32_t k;
  for (k = 0; k < count; k += 8, columns += 32) {
    const v128_t w = wasm_i16x8_load8x8(weights + k);
    a = wasm_i32x4_add(a, wasm_i32x4_dot_i16x8(w, wasm_v128_load(columns)));
    b = wasm_i32x4_add(b, wasm_i32x4_dot_i16x8(w, wasm_v128_load(columns + 8)));
    c = wasm_i32x4_add(c, wasm_i32x4_dot_i16x8(w, wasm_v128_load(columns + 16)));
    d = wasm_i32x4_add(d, wasm_i32x4_dot_i16x8(w, wasm_v128_load(columns + 24)));
  }
  sums[0] += total(a), sums[1] += total(b), sums[2] += total(c), sums[3] += total(d);
}

#elif defined(SMLAD)

static uint32_t word(const void *at) {
  uint32_t value;
  __builtin_memcpy(&value, at, 4);
  return value;
}

static void products(const int16_t *columns, const int8_t *weights, int32_t count, int32_t *sums) {
  int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
  const int8_t *end = weights + count;
  for (; weights < end; weights += 4, columns += 16) {
    const uint32_t w = word(weights);
    const int16x2_t even = __sxtb16(w), odd = __sxtb16(w >> 8 | w << 24);
    a = __smlad(even, word(columns), a), a = __smlad(odd, word(columns + 2), a);
    b = __smlad(even, word(columns + 4), b), b = __smlad(odd, word(columns + 6), b);
    c = __smlad(even, word(columns + 8), c), c = __smlad(odd, word(columns + 10), c);
    d = __smlad(even, word(columns + 12), d), d = __smlad(odd, word(columns + 14), d);
  }
  sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

#else

static void products(const int16_t *columns, const int8_t *weights, int32_t count, int32_t *sums) {
  int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3], k, j;
  for (k = 0; k < count; k += GROUP, columns += COLUMNS * GROUP)
    for (j = 0; j < GROUP; j++) {
      const int32_t w = weights[k + j];
      a += w * columns[j];
      b += w * columns[GROUP + j];
      c += w * columns[2 * GROUP + j];
      d += w * columns[3 * GROUP + j];
    }
  sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

#endif

static void convolve(const Job *job) {
  const Layer *l = job->layer;
  const int32_t places = l->height * l->width;
  int32_t first, at, channel;
  for (first = 0; first < places; first += COLUMNS) {
    const int32_t count = places - first < COLUMNS ? places - first : COLUMNS;
    int8_t *out = job->out + first * l->depth;
    for (at = 0; at < COLUMNS; at++) { /* past the end, the last position again; its result is not stored */
      const int32_t place = first + (at < count ? at : count - 1);
      fill_column(job, job->scratch + at * GROUP, place / l->width, place % l->width);
    }
    for (channel = 0; channel < l->depth; channel++) {
      const int32_t bias = job->bias[channel];
      int32_t sums[COLUMNS];
      sums[0] = sums[1] = sums[2] = sums[3] = bias;
      products(job->scratch, job->weights + channel * l->row_bytes, l->row_bytes, sums);
      for (at = 0; at < count; at++) out[at * l->depth + channel] = quantum(sums[at], job->multipliers[channel], l);
    }
  }
}

/* ---- the other layers ---- */

/* The rows or columns of a window that are inside the image: [*from, *to). */
static void inside(int32_t start, int32_t step, int32_t kernel, int32_t size, int32_t *from, int32_t *to) {
  *from = start < 0 ? (-start + step - 1) / step : 0;
  *to = start >= size ? 0 : (size - start + step - 1) / step;
  if (*to > kernel) *to = kernel;
}

enum { CHUNK = 8 };

static void convolve_depthwise(const Job *job) {
  const Layer *l = job->layer;
  const int32_t repeat = l->depth / l->in_depth;
  int32_t y, x, row, at, c, i, y0, y1, x0, x1;
  for (y = 0; y < l->height; y++) {
    const int32_t top = y * l->stride_y - l->before_y;
    inside(top, l->step_y, l->kernel_y, l->in_height, &y0, &y1);
    for (x = 0; x < l->width; x++) {
      const int32_t left = x * l->stride_x - l->before_x;
      int8_t *out = job->out + (y * l->width + x) * l->depth;
      inside(left, l->step_x, l->kernel_x, l->in_width, &x0, &x1);
      for (c = 0; c < l->depth; c += CHUNK) {
        const int32_t count = l->depth - c < CHUNK ? l->depth - c : CHUNK;
        int32_t sums[CHUNK];
        for (i = 0; i < count; i++) sums[i] = job->bias[c + i];
        for (row = y0; row < y1; row++)
          for (at = x0; at < x1; at++) {
            const int8_t *w = job->weights + (row * l->kernel_x + at) * l->depth + c;
            const int8_t *in = job->in + ((top + row * l->step_y) * l->in_width + left + at * l->step_x) * l->in_depth;
            if (repeat == 1)
              for (i = 0; i < count; i++) sums[i] += (in[c + i] - l->zero_in) * w[i];
            else
              for (i = 0; i < count; i++) sums[i] += (in[(c + i) / repeat] - l->zero_in) * w[i];
          }
        for (i = 0; i < count; i++) out[c + i] = quantum(sums[i], job->multipliers[c + i], l);
      }
    }
  }
}

static void connect(const Job *job) {
  const Layer *l = job->layer;
  const int32_t count = l->in_height * l->in_width * l->in_depth;
  int32_t channel, k;
  for (channel = 0; channel < l->depth; channel++) {
    const int8_t *weights = job->weights + channel * l->row_bytes;
    int32_t sum = job->bias[channel];
    for (k = 0; k < count; k++) sum += (job->in[k] - l->zero_in) * weights[k];
    job->out[channel] = quantum(sum, job->multipliers[channel], l);
  }
}

static void add(const Job *job) {
  const Layer *l = job->layer;
  const int32_t a = l->fixed[0], b = l->fixed[1], shift = l->fixed[2];
  const int32_t bias = ((int32_t)1 << (shift - 1)) - a * l->zero_in - b * l->zero_in2;
  int32_t i;
  for (i = 0; i < l->height * l->width * l->depth; i++)
    job->out[i] = clamped(((bias + a * job->in[i] + b * job->in2[i]) >> shift) + l->zero_out, l);
}

static void mean(const Job *job) {
  const Layer *l = job->layer;
  const int32_t places = l->in_height * l->in_width;
  const float multiplier = float_of(job->multipliers[0]), zero = float_of(job->multipliers[1]);
  int32_t channel, i;
  for (channel = 0; channel < l->in_depth; channel++) {
    int32_t sum = 0;
    volatile float scaled; /* or a compiler may fuse the product with the addition */
    for (i = 0; i < places; i++) sum += job->in[i * l->in_depth + channel];
    scaled = (float)sum * multiplier;
    job->out[channel] = nearest(scaled + zero, 0, l);
  }
}

static void pool(const Job *job) {
  const Layer *l = job->layer;
  int32_t y, x, row, at, c, y0, y1, x0, x1;
  for (y = 0; y < l->height; y++) {
    const int32_t top = y * l->stride_y - l->before_y;
    inside(top, 1, l->kernel_y, l->in_height, &y0, &y1);
    for (x = 0; x < l->width; x++) {
      const int32_t left = x * l->stride_x - l->before_x;
      inside(left, 1, l->kernel_x, l->in_width, &x0, &x1);
      for (c = 0; c < l->depth; c++) {
        const int32_t count = (y1 - y0) * (x1 - x0);
        int32_t highest = -128, sum = 0;
        for (row = y0; row < y1; row++)
          for (at = x0; at < x1; at++) {
            const int32_t value = job->in[((top + row) * l->in_width + left + at) * l->in_depth + c];
            sum += value;
            if (value > highest) highest = value;
          }
        if (l->kind == AVERAGE_POOL_2D) /* rounds half away from zero; division in C truncates */
          highest = (sum >= 0 ? sum + count / 2 : sum - count / 2) / count;
        job->out[(y * l->width + x) * l->depth + c] = clamped(highest, l);
      }
    }
  }
}

static void pad(const Job *job) {
  const Layer *l = job->layer;
  int32_t y, x, c;
  int8_t *out = job->out;
  for (y = -l->before_y; y < l->height - l->before_y; y++)
    for (x = -l->before_x; x < l->width - l->before_x; x++)
      for (c = -l->fixed[0]; c < l->depth - l->fixed[0]; c++) {
        const int within = y >= 0 && y < l->in_height && x >= 0 && x < l->in_width && c >= 0 && c < l->in_depth;
        *out++ = within ? job->in[(y * l->in_width + x) * l->in_depth + c] : (int8_t)l->zero_out;
      }
}

/* TensorFlow Lite's requantization: a 31-bit multiplier, rounded after the product and again after the right shift. */
static int32_t scaled_twice(int32_t value, int32_t multiplier, int32_t shift) {
  const int32_t right = shift < 0 ? -shift : 0, half = (int32_t)1 << 30;
  const int64_t product = (int64_t)value * (shift > 0 ? (int32_t)1 << shift : 1) * multiplier;
  const int32_t high = (int32_t)((product + (product >= 0 ? half : 1 - half)) / ((int64_t)1 << 31));
  const int32_t mask = (int32_t)(((int64_t)1 << right) - 1), rest = high & mask;
  return (high >> right) + (rest > (mask >> 1) + (high < 0));
}

static void rectify(const Job *job) {
  const Layer *l = job->layer;
  int32_t i;
  for (i = 0; i < l->height * l->width * l->depth; i++)
    job->out[i] = clamped(scaled_twice(job->in[i] - l->zero_in, l->fixed[0], l->fixed[1]) + l->zero_out, l);
}

static void copy(const Job *job) {
  const Layer *l = job->layer;
  int32_t i;
  if (job->out != job->in)
    for (i = 0; i < l->height * l->width * l->depth; i++) job->out[i] = job->in[i];
}

/* ---- a network ---- */

static void compute(const uint32_t *network, const Layer *layer, int8_t *arena) {
  Job job;
  job.layer = layer;
  job.in = arena + layer->in;
  job.in2 = arena + layer->in2;
  job.out = arena + layer->out;
  job.scratch = (int16_t *)(void *)(arena + layer->scratch);
  job.weights = (const int8_t *)(network + layer->weights);
  job.bias = (const int32_t *)(network + layer->bias);
  job.multipliers = network + layer->multipliers;
  switch (layer->kind) {
    case CONV_2D: convolve(&job); break;
    case DEPTHWISE_CONV_2D: convolve_depthwise(&job); break;
    case FULLY_CONNECTED: connect(&job); break;
    case ADD: add(&job); break;
    case MEAN: mean(&job); break;
    case MAX_POOL_2D:
    case AVERAGE_POOL_2D: pool(&job); break;
    case PAD: pad(&job); break;
    case RELU:
    case RELU6: rectify(&job); break;
    default: copy(&job); break;
  }
}

const int8_t *edgefer_inner(const uint32_t *network, const uint8_t *pixels, void *arena, uint32_t layers, uint32_t *bytes) {
  const Layer *layer = (const Layer *)(const void *)(network + HEADER_WORDS);
  int8_t *input = (int8_t *)arena + network[INPUT_AT];
  uint32_t i;
  if (network[INPUT_TABLE]) {
    const int8_t *table = (const int8_t *)(network + network[INPUT_TABLE]);
    for (i = 0; i < network[INPUT_BYTES]; i++) input[i] = table[256 * (i % network[INPUT_DEPTH]) + pixels[i]];
  } else {
    for (i = 0; i < network[INPUT_BYTES]; i++) input[i] = (int8_t)(pixels[i] ^ 0x80);
  }
  for (i = 0; i < layers; i++) compute(network, layer + i, arena);
  *bytes = (uint32_t)(layer[layers - 1].height * layer[layers - 1].width * layer[layers - 1].depth);
  return (int8_t *)arena + layer[layers - 1].out;
}

void edgefer_run(const uint32_t *network, const uint8_t *pixels, void *arena, int8_t *answers) {
  const Layer *layer = (const Layer *)(const void *)(network + HEADER_WORDS), *end = layer + network[LAYERS];
  uint32_t bytes;
  edgefer_inner(network, pixels, arena, network[LAYERS], &bytes);
  for (; layer < end; layer++) {
    int32_t i, size = layer->answers ? layer->height * layer->width * layer->depth : 0;
    for (i = 0; i < size; i++) answers[layer->answers - 1 + i] = ((const int8_t *)arena)[layer->out + i];
  }
}

void edgefer_resize_network(uint32_t *network, int32_t height, int32_t width) {
  const int32_t high = (int32_t)network[INPUT_HEIGHT], wide = (int32_t)network[INPUT_WIDTH];
  Layer *layer = (Layer *)(void *)(network + HEADER_WORDS), *end = layer + network[LAYERS];
  for (; layer < end; layer++) {
    layer->in_height = layer->in_height * height / high, layer->in_width = layer->in_width * width / wide;
    layer->height = layer->height * height / high, layer->width = layer->width * width / wide;
    if (layer->answers) { /* the outputs before this one scale by the same factor */
      const int64_t before = (int64_t)(layer->answers - 1) * height * width;
      layer->answers = (int32_t)(before / (high * wide)) + 1;
    }
  }
  network[INPUT_BYTES] = (uint32_t)(height * width) * network[INPUT_DEPTH];
  network[OUTPUT_BYTES] = (uint32_t)((int64_t)network[OUTPUT_BYTES] * height * width / (high * wide));
  network[INPUT_HEIGHT] = (uint32_t)height, network[INPUT_WIDTH] = (uint32_t)width;
}

uint32_t edgefer_arena_bytes(const uint32_t *network) { return network[ARENA]; }
uint32_t edgefer_input_bytes(const uint32_t *network) { return network[INPUT_BYTES]; }
uint32_t edgefer_output_bytes(const uint32_t *network) { return network[OUTPUT_BYTES]; }

/* CRC-32 as in zip and PNG, four bits at a time: its table has 64 bytes, not 1 KB. */
uint32_t edgefer_crc32(const uint8_t *bytes, uint32_t count) {
  static const uint32_t table[16] = {
      0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
      0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
  uint32_t crc = 0xffffffffu, i;
  for (i = 0; i < count; i++) {
    crc = table[(crc ^ bytes[i]) & 15] ^ crc >> 4;
    crc = table[(crc ^ (uint32_t)bytes[i] >> 4) & 15] ^ crc >> 4;
  }
  return ~crc;
}

int edgefer_check(const uint32_t *network, uint32_t words) {
  if (words < HEADER_WORDS || network[0] != MAGIC || network[WORDS] != words) return EDGEFER_NOT_A_NETWORK;
  return edgefer_crc32((const uint8_t *)(network + ARENA), 4 * (words - ARENA)) == network[CRC] ? EDGEFER_OK : EDGEFER_DAMAGED;
}
