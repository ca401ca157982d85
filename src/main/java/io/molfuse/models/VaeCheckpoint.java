// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.molfuse.chem.Vocabulary;
import io.molfuse.train.AdamW;
import io.molfuse.train.Checkpoint;
import io.molfuse.train.CheckpointException;
import io.molfuse.train.LoopState;
import io.molfuse.train.RandomState;
import io.molfuse.train.RunDirectory;
import io.molfuse.train.TrainingState;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;

/**
 * Checkpoints of a molecular VAE: config.json (its size), vocabulary.json, model.safetensors, and for resuming
 * optimizer.safetensors, random.safetensors (libtorch's default generators), state.json, loop.json, run.json (the caller's own settings)
 * and texts of the caller's.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class VaeCheckpoint {
  private static final String CONFIG = "config";
  private static final String VOCABULARY = "vocabulary";
  private static final String MODEL = "model";
  private static final String OPTIMIZER = "optimizer";
  private static final String STATE = "state";
  private static final String RUN = "run";
  private static final String LOOP = "loop";
  private static final String RANDOM = "random";

  /** Dropout and initialisation do not matter for parameters that are overwritten. */
  private static final long ANY_SEED = 0;

  private record Tokens(@JsonProperty(value = "tokens", required = true) List<String> tokens) {}

  private final Checkpoint checkpoint;

  private VaeCheckpoint(Checkpoint checkpoint) {
    this.checkpoint = checkpoint;
  }

  /**
   * A model and its vocabulary.
   *
   * @param model the receiver closes it
   * @param vocabulary as in training
   */
  public record Loaded(MolecularVae model, Vocabulary vocabulary) implements AutoCloseable {
    @Override
    public void close() {
      model.close();
    }
  }

  /**
   * Saves a model and all that is needed to go on training it.
   *
   * @param run the output folder
   * @param model the model
   * @param vocabulary its vocabulary
   * @param settings the caller's settings of the run, as JSON
   * @param texts the caller's texts, by file name
   * @param state how far the run is
   * @param loop what the training loop remembers
   * @param optimizer its moments
   * @param labels which of last, best and every to move to this checkpoint
   * @return the checkpoint's folder
   */
  public static Path save(
      RunDirectory run,
      MolecularVae model,
      Vocabulary vocabulary,
      Object settings,
      Map<String, String> texts,
      TrainingState state,
      LoopState loop,
      AdamW optimizer,
      List<String> labels) {
    Map<String, Object> documents = new LinkedHashMap<>();
    documents.put(CONFIG, model.config());
    documents.put(VOCABULARY, new Tokens(vocabulary.tokens()));
    documents.put(STATE, state);
    documents.put(LOOP, loop);
    documents.put(RUN, settings);
    Map<String, Map<String, Tensor>> tensors = new LinkedHashMap<>();
    tensors.put(MODEL, model.parameters().tensors());
    tensors.put(OPTIMIZER, optimizer.state());
    try (RandomState random = RandomState.capture(model.parameters().tensors().values())) {
      tensors.put(RANDOM, random.named());
      return run.save(state.step(), new Checkpoint.Content(documents, tensors, texts), labels);
    }
  }

  /**
   * Opens a checkpoint.
   *
   * @param given a checkpoint's folder, a run's folder, or its "last" or "best"
   * @param labels which checkpoint to take of a run's folder, the first that exists
   * @return the checkpoint
   * @throws CheckpointException if there is none
   */
  public static VaeCheckpoint open(Path given, String... labels) {
    return new VaeCheckpoint(Checkpoint.open(RunDirectory.resolve(given, labels)));
  }

  /** @return the checkpoint's folder */
  public Path directory() {
    return checkpoint.directory();
  }

  /** @return the size of the model */
  public ModelConfig config() {
    return checkpoint.document(CONFIG, ModelConfig.class);
  }

  /** @return the vocabulary of the model */
  public Vocabulary vocabulary() {
    Tokens tokens = checkpoint.document(VOCABULARY, Tokens.class);
    try {
      return Vocabulary.of(tokens.tokens());
    } catch (IllegalArgumentException e) {
      throw new CheckpointException(checkpoint.documentFile(VOCABULARY) + " is no vocabulary: " + e.getMessage(), e);
    }
  }

  /**
   * The caller's settings of the run.
   *
   * @param type what was given to save
   * @param <T> that type
   * @return the settings
   */
  public <T> T settings(Class<T> type) {
    return checkpoint.document(RUN, type);
  }

  /**
   * A text of the caller's.
   *
   * @param name of the file, as given to save
   * @return its content
   * @throws CheckpointException if the file is missing or damaged
   */
  public String text(String name) {
    return checkpoint.text(name);
  }

  /** @return how far the run was */
  public TrainingState state() {
    return checkpoint.document(STATE, TrainingState.class);
  }

  /** @return what the training loop remembered */
  public LoopState loop() {
    return checkpoint.document(LOOP, LoopState.class);
  }

  /** @return optimiser steps done when it was saved */
  public long step() {
    return checkpoint.step();
  }

  /**
   * The model's tensors alone.
   *
   * @return by name, on the CPU, in the caller's scope
   */
  public Map<String, Tensor> weights() {
    return checkpoint.tensors(MODEL);
  }

  /**
   * Loads the model.
   *
   * @param deviceType where to
   * @return the model and its vocabulary
   */
  public Loaded load(DeviceType deviceType) {
    Vocabulary vocabulary = vocabulary();
    MolecularVae model = new MolecularVae(config(), vocabulary.size(), ANY_SEED, deviceType);
    try {
      checkpoint.tensors(MODEL, model.parameters().tensors());
      return new Loaded(model, vocabulary);
    } catch (RuntimeException e) {
      model.close();
      throw e;
    }
  }

  /**
   * Loads the optimiser's moments.
   *
   * @param optimizer of a model of the same size
   */
  public void loadOptimizer(AdamW optimizer) {
    checkpoint.tensors(OPTIMIZER, optimizer.state());
  }

  /**
   * Sets libtorch's default generators to where they stood. Those of devices that the model was not on then stay as they are.
   *
   * @param model tells which devices
   */
  public void loadRandom(MolecularVae model) {
    try (PointerScope scope = new PointerScope();
        RandomState random = RandomState.capture(model.parameters().tensors().values())) {
      Map<String, Tensor> saved = checkpoint.tensors(RANDOM);
      random.named().forEach((name, values) -> Optional.ofNullable(saved.get(name)).ifPresent(values::copy_));
      random.restore();
    }
  }
}
