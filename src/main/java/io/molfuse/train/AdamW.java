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
 * AdamW (Loshchilov &amp; Hutter 2019) over the parameter groups of a {@link ParameterSet}, one fused kernel call a group, with
 * betas 0.9 and 0.999 and epsilon 1e-8.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class AdamW implements AutoCloseable {
  private static final double BETA1 = 0.9;
  private static final double BETA2 = 0.999;
  private static final double EPSILON = 1e-8;

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

  private final List<Group> groups = new ArrayList<>();
  private final Map<String, Tensor> state = new LinkedHashMap<>();

  /**
   * Makes zero moments for every parameter.
   *
   * @param parameters what to train; must stay open as long as this
   * @param rateFactors factor of each parameter group on the learning rate; 1 for a group not named
   * @param weightDecay of parameters with two or more dimensions; vectors have none
   */
  public AdamW(ParameterSet parameters, Map<String, Double> rateFactors, double weightDecay) {
    Map<String, Group> byKey = new LinkedHashMap<>();
    try (PointerScope scope = new PointerScope()) {
      for (ParameterSet.Parameter parameter : parameters.parameters()) {
        double decay = parameter.tensor().dim() >= 2 ? weightDecay : 0;
        Group group =
            byKey.computeIfAbsent(
                parameter.group() + " " + decay,
                key -> new Group(rateFactors.getOrDefault(parameter.group(), 1.0), decay));
        Tensor values = parameter.tensor().detach();
        TensorOptions scalar = new TensorOptions(ScalarType.Float).device(values.options().device_opt());
        group.params.push_back(parameter.tensor());
        group.expAvgs.push_back(own("exp_avg." + parameter.name(), torch.zeros_like(values)));
        group.expAvgSqs.push_back(own("exp_avg_sq." + parameter.name(), torch.zeros_like(values)));
        group.steps.push_back(own("step." + parameter.name(), torch.zeros(new long[0], scalar)));
      }
    }
    groups.addAll(byKey.values());
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
    TensorVector all = new TensorVector();
    for (Group group : groups) {
      for (long i = 0; i < group.params.size(); i++) {
        Tensor gradient = group.params.get(i).grad();
        if (gradient.defined()) {
          all.push_back(gradient);
        }
      }
    }
    return StepOps.clipGradNorm(all, maxNorm);
  }

  /**
   * One step. Parameters without a gradient stay as they are.
   *
   * @param learningRate the base rate, which each group multiplies by its factor
   */
  public void step(double learningRate) {
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
                .betas(BETA1, BETA2)
                .epsilon(EPSILON)
                .weightDecay(group.weightDecay));
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
