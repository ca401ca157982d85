// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.PropertyStatistics;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/**
 * From the properties of molecules to what they add to the latent's mean and log-variance, and to a position of the decoder's memory. A
 * property that is not known has a learned vector of its own. In training properties are hidden now and then, all of a molecule's or single
 * ones (Ho &amp; Salimans 2022), so that molecules can be asked for with any of them, or none.
 */
@SuppressWarnings("try") // A scope does its work by being open.
final class ConditionHead {
  private static final int STATISTICS = 4;

  private final ModelConfig.Condition config;
  /** [4,P]: mean, deviation, low and high of the training data. */
  private final Tensor statistics;
  private final Tensor weight;
  private final Tensor bias;
  private final Tensor absent;
  private final Linear joined;
  private final Linear mean;
  private final Linear logVar;
  private final Linear memory;

  ConditionHead(ParameterFactory parameters, ModelConfig.Condition config, int latentSize, int hidden) {
    this.config = config;
    int count = config.properties().size();
    double deviation = 1 / Math.sqrt(count);
    // As if all values of the data were within one deviation of 0, until the data say otherwise.
    float[] standard = new float[STATISTICS * count];
    for (int p = 0; p < count; p++) {
      standard[count + p] = 1;
      standard[2 * count + p] = -1;
      standard[3 * count + p] = 1;
    }
    statistics = parameters.buffer("statistics", standard, STATISTICS, count);
    weight = parameters.normal("weight", deviation, count, config.width());
    bias = parameters.constant("bias", 0, count, config.width());
    absent = parameters.normal("absent", deviation, count, config.width());
    joined = Linear.xavier(parameters.under("joined"), config.width(), config.width());
    mean = Linear.xavier(parameters.under("mean"), config.width(), latentSize);
    logVar = Linear.xavier(parameters.under("log_var"), config.width(), latentSize);
    memory = Linear.xavier(parameters.under("memory"), config.width(), hidden);
  }

  void statistics(List<PropertyStatistics> given) {
    if (!given.stream().map(PropertyStatistics::property).toList().equals(config.properties())) {
      throw new IllegalArgumentException(
          "statistics must be of "
              + ModelConfig.Condition.labels(config.properties())
              + ", but are of "
              + ModelConfig.Condition.labels(given.stream().map(PropertyStatistics::property).toList()));
    }
    int count = given.size();
    float[] values = new float[STATISTICS * count];
    for (int p = 0; p < count; p++) {
      PropertyStatistics one = given.get(p);
      values[p] = (float) one.mean();
      values[count + p] = (float) one.deviation();
      values[2 * count + p] = (float) one.low();
      values[3 * count + p] = (float) one.high();
    }
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      statistics.copy_(Tensors.floats(statistics.device(), values, STATISTICS, count));
    }
  }

  List<PropertyStatistics> statistics() {
    float[] values;
    try (PointerScope scope = new PointerScope()) {
      values = Tensors.toFloats(statistics);
    }
    int count = config.properties().size();
    List<PropertyStatistics> result = new ArrayList<>();
    for (int p = 0; p < count; p++) {
      result.add(
          new PropertyStatistics(
              config.properties().get(p), values[p], values[count + p], values[2 * count + p], values[3 * count + p]));
    }
    return result;
  }

  /** Properties [B,P] of which none is known. */
  Tensor unknown(long molecules) {
    return torch.full(new long[] {molecules, config.properties().size()}, new Scalar(Double.NaN), statistics.options());
  }

  /**
   * The vector that stands for properties.
   *
   * @param properties f32 [B,P], NaN for what is not known
   * @return [B,width]
   */
  Tensor vector(Tensor properties, Regularize regularize) {
    if (properties.dim() != 2 || properties.size(1) != config.properties().size()) {
      throw new IllegalArgumentException(
          "properties must be [B,"
              + config.properties().size()
              + "], one column for each of "
              + ModelConfig.Condition.labels(config.properties())
              + ", but has "
              + properties.dim()
              + " dimensions and "
              + properties.numel()
              + " values");
    }
    Tensor known = known(properties, regularize);
    Tensor normal = properties.sub(statistics.select(0, 0)).div(statistics.select(0, 1));
    // NaN times 0 is NaN, and so would be its gradient.
    Tensor values = torch.where(known, normal, torch.zeros_like(normal));
    Tensor present = known.to(properties.scalar_type());
    Tensor sum = values.matmul(weight).add(present.matmul(bias)).add(present.neg().add(new Scalar(1)).matmul(absent));
    return joined.apply(torch.gelu(sum));
  }

  private Tensor known(Tensor properties, Regularize regularize) {
    Tensor known = torch.isfinite(properties);
    double hidden = regularize.probability(config.dropout());
    if (hidden == 0) {
      return known;
    }
    Tensor whole = torch.rand(new long[] {properties.size(0), 1}, properties.options()).ge(new Scalar(hidden));
    Tensor single = torch.rand(properties.shape(), properties.options()).ge(new Scalar(hidden));
    return known.logical_and(whole).logical_and(single);
  }

  /** [B, slots * width], to be added. */
  Tensor mean(Tensor vector) {
    return mean.apply(vector);
  }

  /** [B, slots * width], to be added. */
  Tensor logVar(Tensor vector) {
    return logVar.apply(vector);
  }

  /** [B,1,hidden]. */
  Tensor memory(Tensor vector) {
    return memory.apply(vector).unsqueeze(1);
  }
}
