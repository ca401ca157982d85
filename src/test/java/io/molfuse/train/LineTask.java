// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.Random;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/** Linear regression with dropout on its input: the smallest task with all a run has. A batch is rows of x1, x2, y. */
@SuppressWarnings("try")
final class LineTask implements TrainingTask<float[]>, AutoCloseable {
  private final ParameterSet parameters = new ParameterSet();
  private final Tensor weight;
  private final Tensor bias;
  private final double dropout;

  LineTask(long seed, double dropout) {
    this.dropout = dropout;
    Seeds.seedLibtorch(seed);
    try (PointerScope scope = new PointerScope()) {
      weight = parameters.parameter("weight", "slope", torch.randn(1, 2));
      bias = parameters.parameter("bias", "offset", torch.zeros(1));
    }
  }

  static BatchSource<float[]> batches(long perEpoch) {
    return new BatchSource<>() {
      @Override
      public long batchesPerEpoch() {
        return perEpoch;
      }

      @Override
      public float[] batch(long index) {
        Random random = new Random(Seeds.mix(9, index));
        float[] rows = new float[8 * 3];
        for (int i = 0; i < rows.length; i += 3) {
          rows[i] = (float) random.nextGaussian();
          rows[i + 1] = (float) random.nextGaussian();
          rows[i + 2] = 2 * rows[i] - 3 * rows[i + 1] + 1;
        }
        return rows;
      }
    };
  }

  @Override
  public ParameterSet parameters() {
    return parameters;
  }

  @Override
  public Losses train(float[] batch, long seed) {
    Seeds.seedLibtorch(seed);
    return losses(batch, true);
  }

  @Override
  public Losses evaluate(float[] batch, long seed) {
    return losses(batch, false);
  }

  private Losses losses(float[] batch, boolean training) {
    Tensor rows = Tensor.create(batch, 8, 3);
    Tensor input = torch.dropout(rows.narrow(1, 0L, 2), dropout, training);
    Tensor error = torch.linear(input, weight, new TensorOptional(bias)).sub(rows.narrow(1, 2L, 1));
    Tensor loss = error.mul(error).mean();
    return new Losses(loss).with("half", loss.mul(new Scalar(0.5)));
  }

  @Override
  public int samples(float[] batch) {
    return 8;
  }

  float[] values() {
    float[] values = new float[3];
    new org.bytedeco.javacpp.FloatPointer(weight.data_ptr()).get(values, 0, 2);
    new org.bytedeco.javacpp.FloatPointer(bias.data_ptr()).get(values, 2, 1);
    return values;
  }

  @Override
  public void close() {
    parameters.close();
  }
}
