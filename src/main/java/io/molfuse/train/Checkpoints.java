// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/**
 * Saving and restoring all that a loop of one's own needs to go on where it was, bit for bit on the CPU.
 *
 * <pre>{@code
 * Checkpoints checkpoints = Checkpoints.in(folder)
 *     .every(1000, 3)                                           // keep the latest three of steps 1000, 2000, ...
 *     .tensors("model", parameters.tensors())
 *     .tensors("optimizer", optimizer.state())
 *     .tensors("average", average.state())
 *     .state("scaler", GradScaler.State.class, scaler::state, scaler::load)
 *     .state("rates", LearningRates.State.class, rates::state, rates::load)
 *     .state("loader", DataLoader.Position.class, () -> epoch.position(), position -> this.epoch = loader.resume(position))
 *     .random(parameters.tensors().values());
 * long step = checkpoints.restore() ? checkpoints.step() : 0;
 * while (step < steps) {
 *   ...
 *   checkpoints.save(++step, best);
 * }
 * }</pre>
 *
 * <p>Tensors are written as safetensors files, one a name, and the states into one JSON document. The newest checkpoint is "last", the
 * best one "best"; see {@link RunDirectory} for the folder. A process that is killed at any moment leaves the last checkpoint it finished.
 *
 * <p>A checkpoint is checked as a whole before anything is overwritten: it must have the names, shapes and types that were given here, and
 * no other names. What a state's own restore function throws comes through, with the tensors restored by then. One thread at a time.
 * Saving and restoring wait for the device.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Checkpoints {
  private static final String STATES = "states";
  private static final String RANDOM = "random";
  private static final ObjectMapper JSON = new ObjectMapper();

  private record State<T>(Class<T> type, Supplier<? extends T> save, Consumer<? super T> restore) {
    /** What puts a value back, once it is known to be of the type. */
    Runnable restoring(JsonNode value) throws JsonProcessingException {
      T parsed = value.isNull() ? null : JSON.treeToValue(value, type);
      return () -> restore.accept(parsed);
    }
  }

  private final RunDirectory run;
  private final Map<String, Map<String, Tensor>> tensors = new LinkedHashMap<>();
  private final Map<String, State<?>> states = new LinkedHashMap<>();
  private Iterable<Tensor> random;
  private long every;
  private long step;

  private Checkpoints(RunDirectory run) {
    this.run = run;
  }

  /**
   * Checkpoints of a folder, which is made if need be.
   *
   * @param directory of this run alone
   * @return without anything to save yet
   * @throws CheckpointException if the folder cannot be written
   */
  public static Checkpoints in(Path directory) {
    return new Checkpoints(RunDirectory.prepare(directory));
  }

  /**
   * Keeps checkpoints beside the last and the best one.
   *
   * @param steps those whose step is a multiple of this, at least 1
   * @param count the latest so many of them, at least 1
   * @return this
   */
  public Checkpoints every(long steps, int count) {
    if (steps < 1) {
      throw new IllegalArgumentException("steps: expected at least 1, got " + steps);
    }
    run.keepEvery(count);
    every = steps;
    return this;
  }

  /**
   * Adds tensors, which are overwritten in place by a restore.
   *
   * @param name of the file, without extension: letters, digits, "_" and "-"
   * @param named the tensors, on any device; read at each save
   * @return this
   */
  public Checkpoints tensors(String name, Map<String, Tensor> named) {
    checkNew(name);
    tensors.put(name, named);
    return this;
  }

  /**
   * Adds a value that Jackson can write and read, such as a record.
   *
   * @param name letters, digits, "_" and "-"
   * @param type of the value
   * @param save gives the value, which may be null
   * @param restore takes what a checkpoint has; called after all tensors are restored, in the order in which states were added
   * @param <T> the type
   * @return this
   */
  public <T> Checkpoints state(String name, Class<T> type, Supplier<? extends T> save, Consumer<? super T> restore) {
    checkNew(name);
    states.put(name, new State<>(type, save, restore));
    return this;
  }

  /**
   * Adds the states of libtorch's default generators: the CPU's, and those of the CUDA devices that the tensors are on when it saves.
   *
   * @param on such as all parameters
   * @return this
   */
  public Checkpoints random(Iterable<Tensor> on) {
    checkNew(RANDOM);
    random = on;
    return this;
  }

  private void checkNew(String name) {
    if (!name.matches("[\\w-]+") || name.equals(STATES)) {
      throw new IllegalArgumentException(
          "name: expected letters, digits, \"_\" and \"-\", and not \"" + STATES + "\", got \"" + name + "\"");
    }
    if (tensors.containsKey(name) || states.containsKey(name) || name.equals(RANDOM) && random != null) {
      throw new IllegalArgumentException("name: there is already something named " + name);
    }
  }

  /**
   * Saves a checkpoint as the last one.
   *
   * @param step steps done
   * @param best whether it is also the best so far
   * @return its folder
   * @throws CheckpointException if it cannot be written; earlier checkpoints are then untouched
   */
  public Path save(long step, boolean best) {
    List<String> labels = new ArrayList<>(List.of(RunDirectory.LAST));
    if (best) {
      labels.add(RunDirectory.BEST);
    }
    if (every > 0 && step % every == 0) {
      labels.add(RunDirectory.EVERY);
    }
    ObjectNode values = JSON.createObjectNode();
    states.forEach((name, state) -> values.set(name, JSON.valueToTree(state.save().get())));
    try (PointerScope scope = new PointerScope();
        RandomState generators = generators()) {
      Map<String, Map<String, Tensor>> all = new LinkedHashMap<>(tensors);
      if (generators != null) {
        all.put(RANDOM, generators.named());
      }
      Path saved = run.save(step, new Checkpoint.Content(Map.of(STATES, values), all), labels);
      this.step = step;
      return saved;
    }
  }

  /**
   * Restores the last checkpoint, if there is one.
   *
   * @return false if the folder has none; nothing is changed then
   * @throws CheckpointException if it is damaged, of a newer version or of something else; nothing is changed then
   */
  public boolean restore() {
    if (!RunDirectory.holdsRun(run.directory())) {
      return false;
    }
    restore(RunDirectory.resolve(run.directory(), RunDirectory.LAST));
    return true;
  }

  /**
   * Restores a checkpoint.
   *
   * @param given a checkpoint's folder, or the file "last", "best" or "every" of a run's folder
   * @throws CheckpointException if there is none, or it is damaged, of a newer version or of something else; nothing is changed then
   */
  public void restore(Path given) {
    Checkpoint checkpoint = Checkpoint.open(RunDirectory.resolve(given, RunDirectory.LAST));
    checkpoint.verify();
    List<Runnable> restoring = restoring(checkpoint);
    try (PointerScope scope = new PointerScope();
        RandomState generators = generators()) {
      if (generators != null) {
        checkpoint.requireTensors(RANDOM, generators.named());
      }
      tensors.forEach(checkpoint::requireTensors);
      tensors.forEach(checkpoint::tensors);
      restoring.forEach(Runnable::run);
      // Last, so that what a state's restore draws does not count.
      if (generators != null) {
        checkpoint.tensors(RANDOM, generators.named());
        generators.restore();
      }
    }
    step = checkpoint.step();
  }

  /** @return the step of the checkpoint that was saved or restored latest, 0 before */
  public long step() {
    return step;
  }

  private List<Runnable> restoring(Checkpoint checkpoint) {
    List<String> expected = new ArrayList<>(List.of(STATES + ".json"));
    tensors.keySet().forEach(name -> expected.add(name + ".safetensors"));
    if (random != null) {
      expected.add(RANDOM + ".safetensors");
    }
    requireSame(checkpoint, "file", expected, checkpoint.files());
    JsonNode values = checkpoint.document(STATES, JsonNode.class);
    List<String> found = new ArrayList<>();
    values.fieldNames().forEachRemaining(found::add);
    requireSame(checkpoint, "state", states.keySet(), found);
    List<Runnable> restoring = new ArrayList<>();
    states.forEach(
        (name, state) -> {
          try {
            restoring.add(state.restoring(values.path(name)));
          } catch (JsonProcessingException e) {
            throw new CheckpointException(
                checkpoint.directory() + " has a state " + name + " that is no " + state.type().getName() + ": " + e.getOriginalMessage(),
                e);
          }
        });
    return restoring;
  }

  private static void requireSame(Checkpoint checkpoint, String what, Iterable<String> expected, Iterable<String> found) {
    TreeSet<String> missing = new TreeSet<>();
    TreeSet<String> unexpected = new TreeSet<>();
    expected.forEach(missing::add);
    found.forEach(unexpected::add);
    TreeSet<String> both = new TreeSet<>(missing);
    both.retainAll(unexpected);
    missing.removeAll(both);
    unexpected.removeAll(both);
    if (!missing.isEmpty() || !unexpected.isEmpty()) {
      String lacks = missing.isEmpty() ? "" : " lacks the " + what + " " + String.join(", ", missing);
      String has = unexpected.isEmpty() ? "" : " has the " + what + " " + String.join(", ", unexpected) + ", which nothing here takes";
      throw new CheckpointException(checkpoint.directory() + lacks + (lacks.isEmpty() || has.isEmpty() ? "" : " and") + has);
    }
  }

  private RandomState generators() {
    return random == null ? null : RandomState.capture(random);
  }
}
