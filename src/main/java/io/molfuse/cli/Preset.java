// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import io.molfuse.models.ModelConfig;
import io.molfuse.train.LearningRateSchedule;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Locale;
import java.util.stream.Stream;

/**
 * A model's size with the training that suits it, from presets/NAME.yaml.
 *
 * @param model its size
 * @param training how to train it
 */
record Preset(
    @JsonProperty(value = "model", required = true) ModelConfig model,
    @JsonProperty(value = "training", required = true) Training training) {

  /** The presets there are. */
  enum Name {
    TINY,
    QUICK,
    SMALL,
    MEDIUM,
    LARGE;

    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  /** Numbers of molecules from which on a data set is medium and large. */
  private static final int MEDIUM_DATA = 50_000;

  private static final int LARGE_DATA = 500_000;

  /** CPU threads from which on the small model learns as many molecules in the same time as the quick one on two. */
  private static final int MANY_THREADS = 8;

  /**
   * How to train.
   *
   * @param batchSize molecules of a batch
   * @param accumulation batches per optimiser step
   * @param epochs passes over the data
   * @param maxMinutes time limit, 0 for none
   * @param learningRate base rate
   * @param warmupSteps steps to reach it
   * @param schedule its course afterwards
   * @param minRatio its end over its base
   * @param weightDecay of matrices
   * @param clipNorm limit of the gradients' norm
   * @param beta weight of the Kullback-Leibler term
   * @param checkpointMinutes time between checkpoints
   */
  record Training(
      @JsonProperty(value = "batch_size", required = true) int batchSize,
      @JsonProperty(value = "accumulation", required = true) int accumulation,
      @JsonProperty(value = "epochs", required = true) long epochs,
      @JsonProperty(value = "max_minutes", required = true) double maxMinutes,
      @JsonProperty(value = "learning_rate", required = true) double learningRate,
      @JsonProperty(value = "warmup_steps", required = true) long warmupSteps,
      @JsonProperty(value = "schedule", required = true) LearningRateSchedule.Kind schedule,
      @JsonProperty(value = "min_lr_ratio", required = true) double minRatio,
      @JsonProperty(value = "weight_decay", required = true) double weightDecay,
      @JsonProperty(value = "clip_norm", required = true) double clipNorm,
      @JsonProperty(value = "beta", required = true) double beta,
      @JsonProperty(value = "checkpoint_minutes", required = true) double checkpointMinutes) {}

  static Preset load(Name name) {
    ObjectMapper yaml =
        YAMLMapper.builder()
            .enable(MapperFeature.ACCEPT_CASE_INSENSITIVE_ENUMS)
            .enable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
            .build();
    try (InputStream file = Preset.class.getResourceAsStream("presets/" + name + ".yaml")) {
      return yaml.readValue(file, Preset.class);
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read the preset " + name, e);
    }
  }

  /** The preset that gets somewhere in a few minutes. */
  static Name forMachine(int threads, boolean gpu) {
    return gpu || threads >= MANY_THREADS ? Name.SMALL : Name.QUICK;
  }

  /** The longest sequences of the presets that {@link #forData} chooses from. */
  static int longestForData() {
    return Stream.of(Name.SMALL, Name.MEDIUM, Name.LARGE)
        .mapToInt(name -> load(name).model().decoder().maxLength())
        .max()
        .orElseThrow();
  }

  /** The preset for so many molecules. */
  static Name forData(int molecules) {
    if (molecules < MEDIUM_DATA) {
      return Name.SMALL;
    }
    return molecules < LARGE_DATA ? Name.MEDIUM : Name.LARGE;
  }
}
