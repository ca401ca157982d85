// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/**
 * The keys and values of the positions decoded so far. Belongs to the scope it was made in, unless it is retained.
 *
 * @param layers one entry a decoder layer
 * @param filled int32 [B]: positions in the caches
 * @param memory int32 [B]: positions of the memory
 */
record DecoderCache(List<Layer> layers, Tensor filled, Tensor memory) {
  /**
   * One layer's tensors.
   *
   * @param keys [B,heads,capacity,D]
   * @param values [B,heads,capacity,D]
   * @param memoryKeys [B,heads,S,D]
   * @param memoryValues [B,heads,S,D]
   */
  record Layer(Tensor keys, Tensor values, Tensor memoryKeys, Tensor memoryValues) {}

  void grow() {
    filled.add_(new Scalar(1));
  }

  /**
   * The caches of some sequences. As many as before are moved in place, so that a beam search needs no second cache.
   *
   * @param rows int32 [n]: which sequences
   * @param positions how many positions are filled
   * @return this, changed, if n is B
   */
  DecoderCache select(Tensor rows, int positions) {
    if (rows.size(0) == filled.size(0)) {
      for (Layer layer : layers) {
        for (Tensor cache : List.of(layer.keys(), layer.values())) {
          Tensor used = cache.narrow(2, 0L, positions);
          used.copy_(used.index_select(0, rows));
        }
        for (Tensor cache : List.of(layer.memoryKeys(), layer.memoryValues())) {
          cache.copy_(cache.index_select(0, rows));
        }
      }
      return this;
    }
    List<Layer> selected = new ArrayList<>();
    for (Layer layer : layers) {
      selected.add(
          new Layer(
              selected(layer.keys(), rows, positions),
              selected(layer.values(), rows, positions),
              layer.memoryKeys().index_select(0, rows),
              layer.memoryValues().index_select(0, rows)));
    }
    return new DecoderCache(selected, filled.index_select(0, rows), memory.index_select(0, rows));
  }

  private static Tensor selected(Tensor cache, Tensor rows, int positions) {
    Tensor room = torch.zeros(new long[] {rows.size(0), cache.size(1), cache.size(2), cache.size(3)}, cache.options());
    room.narrow(2, 0L, positions).copy_(cache.narrow(2, 0L, positions).index_select(0, rows));
    return room;
  }

  /** Keeps the tensors beyond their scope, until {@link #release}. */
  void retain() {
    each(Tensor::retainReference);
  }

  void release() {
    each(Tensor::releaseReference);
  }

  private void each(Consumer<Tensor> action) {
    for (Layer layer : layers) {
      List.of(layer.keys(), layer.values(), layer.memoryKeys(), layer.memoryValues()).forEach(action);
    }
    action.accept(filled);
    action.accept(memory);
  }
}
