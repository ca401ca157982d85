// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.StringTensorDict;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorImpl;

/**
 * Parameters of any libtorch model by name, in groups with a factor on the learning rate and a weight decay of their own. The tensors
 * stay the caller's; an optimizer made of the groups has references of its own.
 *
 * <pre>{@code
 * ParameterGroups groups =
 *     new ParameterGroups()
 *         .add("encoder", 1.0, 0.01, ParameterGroups.named("encoder", encoder))
 *         .add("decoder", 1.2, 0.01, ParameterGroups.named("decoder", decoder));
 * }</pre>
 *
 * <p>A parameter belongs to one group, once: a step would otherwise change it twice. A weight that two modules share is in the names of
 * both, so leave it out of one of them.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class ParameterGroups {
  /** Suffix of the group of vectors (biases, norms) that goes with a group of matrices, see {@link #of}. */
  public static final String UNDECAYED = ".undecayed";

  /**
   * Parameters that share a rate and a weight decay.
   *
   * @param name unique
   * @param rateFactor factor on the base rate, at least 0
   * @param weightDecay at least 0
   * @param parameters leaves that require gradients, by names unique over all groups
   */
  public record Group(String name, double rateFactor, double weightDecay, Map<String, Tensor> parameters) {
    /** Checks the values. */
    public Group {
      atLeastZero(name, "rate factor", rateFactor);
      atLeastZero(name, "weight decay", weightDecay);
      parameters = Collections.unmodifiableMap(new LinkedHashMap<>(parameters));
    }

    private static void atLeastZero(String group, String what, double value) {
      if (!(value >= 0) || Double.isInfinite(value)) {
        throw new IllegalArgumentException("group " + group + ": the " + what + " must be at least 0, but is " + value);
      }
    }
  }

  private final List<Group> groups = new ArrayList<>();
  private final Set<String> names = new HashSet<>();

  /** Makes no groups. */
  public ParameterGroups() {
    // Groups are added one by one.
  }

  /**
   * The groups of a set. Parameters with fewer than two dimensions have no weight decay and are groups of their own, named as the
   * others with {@link #UNDECAYED}.
   *
   * @param set the parameters, each with its group's name
   * @param rateFactors factor of each group; 1 for a group not named
   * @param weightDecay of parameters with two or more dimensions
   * @return the groups in the order of their first parameters
   */
  public static ParameterGroups of(ParameterSet set, Map<String, Double> rateFactors, double weightDecay) {
    Map<String, Map<String, Tensor>> members = new LinkedHashMap<>();
    Map<String, Double> factors = new LinkedHashMap<>();
    Map<String, Double> decays = new LinkedHashMap<>();
    for (ParameterSet.Parameter parameter : set.parameters()) {
      boolean decayed = parameter.tensor().dim() >= 2;
      String name = decayed ? parameter.group() : parameter.group() + UNDECAYED;
      members.computeIfAbsent(name, key -> new LinkedHashMap<>()).put(parameter.name(), parameter.tensor());
      factors.put(name, rateFactors.getOrDefault(parameter.group(), 1.0));
      decays.put(name, decayed ? weightDecay : 0);
    }
    ParameterGroups groups = new ParameterGroups();
    members.forEach((name, tensors) -> groups.add(name, factors.get(name), decays.get(name), tensors));
    return groups;
  }

  /**
   * The parameters of a libtorch module and its children. One that several children share is there once, by its first name.
   *
   * @param module any
   * @return handles by name, which belong to the caller's innermost scope; they can be removed from the map
   */
  public static Map<String, Tensor> named(Module module) {
    Map<String, Tensor> named = new LinkedHashMap<>();
    Set<Long> seen = new HashSet<>();
    try (StringTensorDict parameters = module.named_parameters()) {
      for (long i = 0; i < parameters.size(); i++) {
        try (BytePointer name = parameters.get(i).key()) {
          // A handle of its own: the one returned points into the dictionary.
          Tensor parameter = new Tensor(parameters.get(i).value());
          if (seen.add(identity(parameter))) {
            named.put(name.getString(), parameter);
          } else {
            parameter.close();
          }
        }
      }
    }
    return named;
  }

  /**
   * As {@link #named(Module)} with names that modules of the same kind do not share.
   *
   * @param prefix comes before each name, with a dot
   * @param module any
   * @return handles by name, which belong to the caller's innermost scope; they can be removed from the map
   */
  public static Map<String, Tensor> named(String prefix, Module module) {
    Map<String, Tensor> named = new LinkedHashMap<>();
    named(module).forEach((name, tensor) -> named.put(prefix + "." + name, tensor));
    return named;
  }

  /** Where the tensor itself is: handles of one tensor have it in common. */
  private static long identity(Tensor tensor) {
    try (TensorImpl tensorItself = tensor.unsafeGetTensorImpl()) {
      return tensorItself.address();
    }
  }

  /**
   * Adds a group.
   *
   * @param name unique
   * @param rateFactor factor on the base rate, at least 0
   * @param weightDecay at least 0
   * @param parameters leaves that require gradients, by names unique over all groups
   * @return this
   * @throws IllegalArgumentException if a name or a tensor is there already, also under another name, or something is no such leaf
   */
  public ParameterGroups add(String name, double rateFactor, double weightDecay, Map<String, Tensor> parameters) {
    Group group = new Group(name, rateFactor, weightDecay, parameters);
    if (groups.stream().anyMatch(other -> other.name().equals(name))) {
      throw new IllegalArgumentException("there is already a group named " + name);
    }
    try (PointerScope scope = new PointerScope()) {
      // Asked for anew each time: what was a parameter may be closed, and its place another's.
      Map<Long, String> known = new HashMap<>();
      parameters().forEach((each, tensor) -> known.put(identity(tensor), each));
      for (Map.Entry<String, Tensor> parameter : group.parameters().entrySet()) {
        if (names.contains(parameter.getKey())) {
          throw new IllegalArgumentException("group " + name + ": there is already a parameter named " + parameter.getKey());
        }
        if (!parameter.getValue().is_leaf() || !parameter.getValue().requires_grad()) {
          throw new IllegalArgumentException(
              "group " + name + ": " + parameter.getKey() + " must be a leaf that requires gradients");
        }
        String other = known.putIfAbsent(identity(parameter.getValue()), parameter.getKey());
        if (other != null) {
          throw new IllegalArgumentException(
              "group " + name + ": " + parameter.getKey() + " is the same tensor as " + other + "; leave one of them out");
        }
      }
    }
    names.addAll(group.parameters().keySet());
    groups.add(group);
    return this;
  }

  /** @return the groups in order */
  public List<Group> groups() {
    return Collections.unmodifiableList(groups);
  }

  /** @return all parameters by name, in order */
  public Map<String, Tensor> parameters() {
    Map<String, Tensor> all = new LinkedHashMap<>();
    groups.forEach(group -> all.putAll(group.parameters()));
    return all;
  }

  /**
   * The groups' rates for a base rate.
   *
   * @param baseRate such as {@link LearningRates#rate()}
   * @return rate by group
   */
  public Map<String, Double> rates(double baseRate) {
    Map<String, Double> rates = new LinkedHashMap<>();
    groups.forEach(group -> rates.put(group.name(), baseRate * group.rateFactor()));
    return rates;
  }
}
