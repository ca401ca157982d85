// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** What a forward pass gives: the loss to differentiate, and named scalars to report. Lives within one step's scope. */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Losses {
  private final Tensor total;
  private final List<String> names = new ArrayList<>();
  private final List<Tensor> tensors = new ArrayList<>();

  /** @param total scalar with a history, reported as "total_loss" */
  public Losses(Tensor total) {
    this.total = total;
    with("total_loss", total);
  }

  /**
   * Adds a scalar to report.
   *
   * @param name its name in reports
   * @param value scalar tensor
   * @return this
   */
  public Losses with(String name, Tensor value) {
    names.add(name);
    tensors.add(value);
    return this;
  }

  /** @return the loss to differentiate */
  public Tensor total() {
    return total;
  }

  /** @return all reported values; waits for the device once */
  public Map<String, Double> read() {
    float[] values = new float[names.size()];
    try (PointerScope scope = new PointerScope()) {
      new FloatPointer(row().cpu().data_ptr()).get(values);
    }
    Map<String, Double> result = new LinkedHashMap<>();
    for (int i = 0; i < values.length; i++) {
      result.put(names.get(i), (double) values[i]);
    }
    return result;
  }

  List<String> names() {
    return List.copyOf(names);
  }

  /** All reported values as float32 [names], on their device. */
  Tensor row() {
    TensorVector scalars = new TensorVector(names.size());
    for (int i = 0; i < names.size(); i++) {
      // In mixed precision a model may report some values in 16 bits and others in 32.
      scalars.put(i, tensors.get(i).detach().to(ScalarType.Float).reshape(new long[0]));
    }
    return torch.stack(scalars);
  }
}
