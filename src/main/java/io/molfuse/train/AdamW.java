// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.StepOps;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * AdamW (Loshchilov &amp; Hutter 2019) over {@link ParameterGroups}, one fused kernel call a group. It works with a {@link GradScaler}
 * without waiting for a device.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class AdamW implements ScalableOptimizer, AutoCloseable {
  /**
   * What all groups share.
   *
   * @param beta1 decay of the first moment in [0,1)
   * @param beta2 decay of the second moment in [0,1)
   * @param epsilon added to the denominator
   */
  public record Settings(double beta1, double beta2, double epsilon) {
    /** The usual ones: 0.9, 0.999 and 1e-8. */
    public static final Settings USUAL = new Settings(0.9, 0.999, 1e-8);
  }

  /** Parameters that share a rate and a weight decay, with their state, in vectors kept for the whole run. */
  private static final class Group {
    final double rateFactor;
    final double weightDecay;
    final TensorVector params = new TensorVector();
    final TensorVector expAvgs = new TensorVector();
    final TensorVector expAvgSqs = new TensorVector();
    final TensorVector steps = new TensorVector();

    Group(double rateFactor, double weightDecay) {
      this.rateFactor = rateFactor;
      this.weightDecay = weightDecay;
      for (TensorVector vector : vectors()) {
        vector.retainReference();
      }
    }

    List<TensorVector> vectors() {
      return List.of(params, expAvgs, expAvgSqs, steps);
    }

    TensorVector gradients() {
      TensorVector gradients = new TensorVector(params.size());
      for (long i = 0; i < params.size(); i++) {
        gradients.put(i, params.get(i).grad());
      }
      return gradients;
    }
  }

  private final Settings settings;
  private final List<Group> groups = new ArrayList<>();
  private final Map<String, Tensor> state = new LinkedHashMap<>();

  /**
   * Makes zero moments for every parameter, with the usual settings.
   *
   * @param parameters what to train; must stay open as long as this
   * @param rateFactors factor of each parameter group on the learning rate; 1 for a group not named
   * @param weightDecay of parameters with two or more dimensions; vectors have none
   */
  public AdamW(ParameterSet parameters, Map<String, Double> rateFactors, double weightDecay) {
    this(ParameterGroups.of(parameters, rateFactors, weightDecay), Settings.USUAL);
  }

  /**
   * Makes zero moments for every parameter.
   *
   * @param parameters what to train, with rates and weight decays
   * @param settings of all groups
   */
  public AdamW(ParameterGroups parameters, Settings settings) {
    this.settings = settings;
    try (PointerScope scope = new PointerScope()) {
      for (ParameterGroups.Group each : parameters.groups()) {
        Group group = new Group(each.rateFactor(), each.weightDecay());
        groups.add(group);
        each.parameters().forEach((name, tensor) -> add(group, name, tensor));
      }
    }
  }

  private void add(Group group, String name, Tensor parameter) {
    Tensor values = parameter.detach();
    TensorOptions scalar = new TensorOptions(ScalarType.Float).device(values.options().device_opt());
    group.params.push_back(parameter);
    group.expAvgs.push_back(own("exp_avg." + name, torch.zeros_like(values)));
    group.expAvgSqs.push_back(own("exp_avg_sq." + name, torch.zeros_like(values)));
    group.steps.push_back(own("step." + name, torch.zeros(new long[0], scalar)));
  }

  private Tensor own(String name, Tensor tensor) {
    tensor.retainReference();
    state.put(name, tensor);
    return tensor;
  }

  /** @return the moments and step counts by name, for checkpoints */
  public Map<String, Tensor> state() {
    return Collections.unmodifiableMap(state);
  }

  /**
   * Cuts the gradients so that their joint norm is at most maxNorm.
   *
   * @param maxNorm positive, or infinity to only measure
   * @return the norm before that, a scalar in the caller's scope
   */
  public Tensor clipGradients(double maxNorm) {
    try (TensorVector all = gradients()) {
      return StepOps.clipGradNorm(all, maxNorm);
    }
  }

  @Override
  public TensorVector gradients() {
    TensorVector all = new TensorVector();
    for (Group group : groups) {
      for (long i = 0; i < group.params.size(); i++) {
        all.push_back(group.params.get(i).grad());
      }
    }
    return all;
  }

  /** Drops all gradients, so that the next backward writes instead of adds. */
  public void dropGradients() {
    try (PointerScope scope = new PointerScope()) {
      Tensor none = new Tensor();
      for (Group group : groups) {
        for (long i = 0; i < group.params.size(); i++) {
          group.params.get(i).mutable_grad().put(none);
        }
      }
    }
  }

  /**
   * One step. Parameters without a gradient stay as they are.
   *
   * @param learningRate the base rate, which each group multiplies by its factor
   */
  public void step(double learningRate) {
    step(learningRate, null, null);
  }

  @Override
  public void step(double learningRate, Tensor gradScale, Tensor foundInf) {
    try (PointerScope scope = new PointerScope()) {
      for (Group group : groups) {
        StepOps.fusedAdamW(
            group.params,
            group.gradients(),
            group.expAvgs,
            group.expAvgSqs,
            group.steps,
            StepOps.adamW()
                .learningRate(learningRate * group.rateFactor)
                .betas(settings.beta1(), settings.beta2())
                .epsilon(settings.epsilon())
                .weightDecay(group.weightDecay)
                .scaled(gradScale, foundInf));
      }
    }
  }

  /** Releases the state. */
  @Override
  public void close() {
    for (Group group : groups) {
      group.vectors().forEach(TensorVector::releaseReference);
    }
    state.values().forEach(Tensor::releaseReference);
    groups.clear();
    state.clear();
  }
}
