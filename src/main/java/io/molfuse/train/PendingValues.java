// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/** The values of the last steps, left on the device until someone wants to know them: a step that is not logged waits for nothing. */
@SuppressWarnings("try") // A scope does its work by being open.
final class PendingValues implements AutoCloseable {
  private record Row(List<String> names, Tensor values) {}

  private final int most;
  private final Deque<Row> rows = new ArrayDeque<>();

  /** @param most steps to keep; older ones are forgotten unread */
  PendingValues(int most) {
    this.most = most;
  }

  void add(Losses losses) {
    Tensor row = losses.row();
    row.retainReference();
    rows.add(new Row(losses.names(), row));
    if (rows.size() > most) {
      rows.remove().values().releaseReference();
    }
  }

  /** The values of the steps since the last call, oldest first. Waits for the device once. */
  List<Map<String, Double>> read() {
    float[] values;
    try (PointerScope scope = new PointerScope()) {
      TensorVector vector = new TensorVector(rows.size());
      int i = 0;
      for (Row row : rows) {
        vector.put(i++, row.values());
      }
      Tensor all = torch.cat(vector).cpu();
      values = new float[(int) all.numel()];
      new FloatPointer(all.data_ptr()).get(values);
    }
    List<Map<String, Double>> steps = new ArrayList<>();
    int at = 0;
    for (Row row : rows) {
      Map<String, Double> step = new LinkedHashMap<>();
      for (String name : row.names()) {
        step.put(name, (double) values[at++]);
      }
      steps.add(step);
    }
    close();
    return steps;
  }

  /** Forgets what was not read. */
  @Override
  public void close() {
    rows.forEach(row -> row.values().releaseReference());
    rows.clear();
  }
}
