/* Finds faces by a cascade of Haar features (Viola & Jones 2001), as OpenCV's CascadeClassifier does, box for box.
 *
 * The cascade is a constant of 32-bit words that edgefer made of an OpenCV file; edgefer itself has none.
 */
#ifndef EDGEFER_FACES_H
#define EDGEFER_FACES_H

#include <stdint.h>

/* Bytes of workspace, aligned to 8, for gray images of up to height * width pixels. */
uint32_t edgefer_faces_bytes(int32_t height, int32_t width);

/* Boxes (left, top, right, bottom) of faces of at least `smallest` pixels, at most `limit`; returns how many. */
int32_t edgefer_faces(const uint32_t *cascade, const uint8_t *gray, int32_t height, int32_t width, int32_t smallest,
                      void *workspace, int32_t *boxes, int32_t limit);

#endif
