// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.molfuse.chem.PropertyFunction;
import io.molfuse.models.ModelConfig;

/**
 * All settings of a training run: what configuration files, presets and --set can say. What each means, and what it is unless given,
 * stands in presets/defaults.yaml.
 *
 * @param preset the preset that the rest started from; null until it is chosen by the data
 * @param data the molecules
 * @param model its size
 * @param training how to train
 */
record Configuration(
    @JsonProperty("preset") Preset.Name preset,
    @JsonProperty(value = "data", required = true) Data data,
    @JsonProperty(value = "model", required = true) ModelConfig model,
    @JsonProperty(value = "training", required = true) TrainingSettings training) {

  /** The file of a checkpoint that holds the configuration. */
  static final String FILE = "configuration.yaml";

  /** How a run gets at its molecules. */
  enum Access {
    MEMORY,
    STREAMING
  }

  private static final int MOST_WORKERS = 8;

  /** The special tokens and one other. */
  private static final int SMALLEST_VOCABULARY = 5;

  /**
   * The molecules.
   *
   * @param path of the SMILES file; null for the bundled molecules
   * @param maxVocabulary most tokens
   * @param access all in memory, or read again each epoch
   * @param shuffleBuffer molecules that streaming mixes
   * @param workers threads that read; 0 for one per processor, at most 8
   */
  record Data(
      @JsonProperty("path") String path,
      @JsonProperty(value = "max_vocabulary", required = true) int maxVocabulary,
      @JsonProperty(value = "access", required = true) Access access,
      @JsonProperty(value = "shuffle_buffer", required = true) int shuffleBuffer,
      @JsonProperty(value = "workers", required = true) int workers) {
    /** Checks the values. */
    Data {
      atLeast("data.max_vocabulary", maxVocabulary, SMALLEST_VOCABULARY);
      atLeast("data.shuffle_buffer", shuffleBuffer, 1);
      atLeast("data.workers", workers, 0);
    }

    /** @return threads that read */
    int threads() {
      return workers > 0 ? workers : Math.min(Runtime.getRuntime().availableProcessors(), MOST_WORKERS);
    }
  }

  /** Checks what concerns several parts. */
  Configuration {
    try {
      PropertyFunction.standard().require(model.condition().properties());
    } catch (IllegalArgumentException e) {
      throw new IllegalArgumentException("model.condition.properties: " + e.getMessage(), e);
    }
    if (data.access() == Access.STREAMING && data.shuffleBuffer() < training.batchSize()) {
      throw new IllegalArgumentException(
          "data.shuffle_buffer must be at least training.batch_size, "
              + training.batchSize()
              + ", for data.access streaming, but is "
              + data.shuffleBuffer());
    }
  }

  /** @return this as YAML, of which an equal configuration can be read */
  String yaml() {
    return SettingWriter.yaml(this);
  }

  static Configuration of(Setting setting) {
    return SettingBinder.bind(Configuration.class, setting);
  }

  static void atLeast(String key, double value, long least) {
    if (!(value >= least) || Double.isInfinite(value)) {
      throw new IllegalArgumentException(key + " must be at least " + least + ", but is " + number(value));
    }
  }

  static String number(double value) {
    return value == Math.rint(value) && Math.abs(value) < 1e15 ? Long.toString((long) value) : Double.toString(value);
  }
}
