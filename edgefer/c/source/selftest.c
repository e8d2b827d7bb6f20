/* Checks that this processor runs exactly the exported network: hash, settings, pixels and outputs. */
#include "edgefer_net.h"
#include "edgefer_pixels.h"
#include "network.h"
#include "platform.h"
#include "vectors.h"

static uint8_t arena[EDGEFER_ARENA_BYTES] __attribute__((aligned(16)));
static uint8_t face[EDGEFER_INPUT_BYTES];
static int8_t answers[EDGEFER_ANSWERS]; /* too large for the stack if the network finds faces */

static void print_number(uint32_t number) {
  char text[11];
  int place = 10;
  text[place] = 0;
  do text[--place] = (char)('0' + number % 10);
  while (number /= 10);
  platform_print(text + place);
}

static int report(const char *name, uint32_t wrong, uint32_t count) {
  platform_print(name);
  print_number(wrong);
  platform_print(" of ");
  print_number(count);
  platform_print(" differ\n");
  return wrong != 0;
}

/* The labels, and network.h's output scale, zero point, temperature and crops. */
static int check_settings(void) {
  const uint32_t crc = edgefer_crc32((const uint8_t *)vector_settings, sizeof vector_settings);
  uint32_t label, bytes, wrong = crc != VECTOR_SETTINGS_CRC;
  for (label = 0; label < EDGEFER_LABELS; label++) {
    for (bytes = 0; edgefer_labels[label][bytes]; bytes++) {}
    wrong += edgefer_crc32((const uint8_t *)edgefer_labels[label], bytes) != vector_label_crcs[label];
  }
  return report("settings: ", wrong, 1 + EDGEFER_LABELS);
}

static int check_pixels(void) {
  const EdgeferCrop crop = {VECTOR_CROP_SCALE, VECTOR_CROP_DX, VECTOR_CROP_DY};
  uint32_t frame, i, wrong = 0;
  for (frame = 0; frame < VECTOR_FRAMES; frame++) {
    EdgeferFrame seen = {vector_frames[frame], VECTOR_FRAME_HEIGHT, VECTOR_FRAME_WIDTH, EDGEFER_BGR};
    int32_t square[3];
    edgefer_square(vector_boxes[frame], &crop, square);
    edgefer_face(&seen, square, 0, EDGEFER_INPUT_HEIGHT, EDGEFER_INPUT_WIDTH, EDGEFER_INPUT_COLOR, face);
    for (i = 0; i < EDGEFER_INPUT_BYTES; i++) wrong += face[i] != vector_crops[frame][i];
  }
  return report("pixels: ", wrong, VECTOR_FRAMES * EDGEFER_INPUT_BYTES);
}

static int check_answers(void) {
  uint32_t vector, i, wrong = 0, ticks = 0;
  for (vector = 0; vector < VECTORS; vector++) {
    uint32_t top = 0;
    const uint32_t began = platform_ticks();
    edgefer_run(edgefer_network, vector_pixels[vector], arena, answers);
    ticks = platform_ticks() - began;
    for (i = 0; i < EDGEFER_ANSWERS; i++) {
      wrong += answers[i] != vector_answers[vector][i];
      if (answers[i] > answers[top]) top = i;
    }
#ifdef EDGEFER_READS
    platform_print("image ");
    print_number(vector);
    platform_print(": ");
    platform_print(edgefer_labels[top]);
    platform_print("\n");
#endif
  }
  if (ticks) {
    platform_print("ticks of the clock per image: ");
    print_number(ticks);
    platform_print("\n");
  }
  return report("answers: ", wrong, VECTORS * EDGEFER_ANSWERS);
}

int main(void) {
  int failed = edgefer_check(edgefer_network, EDGEFER_NETWORK_WORDS) != EDGEFER_OK ||
               edgefer_network[2] != EDGEFER_NETWORK_CRC || edgefer_arena_bytes(edgefer_network) != EDGEFER_ARENA_BYTES;
  platform_print(failed ? "network: it is not the one that was exported\n" : "network: whole, as exported\n");
  failed |= check_settings();
  failed |= check_pixels();
  failed |= check_answers();
  platform_print(failed ? "FAIL\n" : "PASS\n");
  return failed;
}
