// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonProperty;
import io.molfuse.chem.MolecularProperty;
import java.util.HashSet;
import java.util.List;

/**
 * The size of a molecular VAE.
 *
 * @param encoder graph to pooled layers
 * @param latent pooled layers to latent to the decoder's memory
 * @param decoder memory to tokens
 * @param condition properties to latent and decoder; null, as in files of before there were conditions, is {@link Condition#NONE}
 */
public record ModelConfig(
    @JsonProperty(value = "encoder", required = true) Encoder encoder,
    @JsonProperty(value = "latent", required = true) Latent latent,
    @JsonProperty(value = "decoder", required = true) Decoder decoder,
    @JsonProperty("condition") Condition condition) {

  /** Width of a node's features: atomic number, degree, formal charge, hybridisation, aromaticity, radical electrons. */
  public static final int NODE_FEATURES = 6;

  /** The selection of the full-size model, which skips two of the last layers. */
  private static final int[] SELECTED_OF_TEN = {1, 2, 3, 4, 5, 6, 8, 10};

  /** Checks that the parts are there. */
  @JsonCreator
  public ModelConfig {
    if (encoder == null || latent == null || decoder == null) {
      throw new IllegalArgumentException("model needs the parts encoder, latent and decoder");
    }
    condition = condition == null ? Condition.NONE : condition;
  }

  /**
   * A model without conditions.
   *
   * @param encoder graph to pooled layers
   * @param latent pooled layers to latent to the decoder's memory
   * @param decoder memory to tokens
   */
  public ModelConfig(Encoder encoder, Latent latent, Decoder decoder) {
    this(encoder, latent, decoder, Condition.NONE);
  }

  /**
   * The number of trainable scalars, by part, without making a model.
   *
   * @param vocabularySize number of tokens, the special ones included
   * @return encoder, latent, condition and decoder
   */
  public ParameterCount parameterCount(int vocabularySize) {
    return ParameterCount.of(this, vocabularySize);
  }

  /**
   * The same with other conditions.
   *
   * @param other conditions
   * @return a copy
   */
  public ModelConfig with(Condition other) {
    return new ModelConfig(encoder, latent, decoder, other);
  }

  /**
   * The graph encoder.
   *
   * @param layers graph transformer layers
   * @param selected how many of them are pooled into the latent's input
   * @param heads attention heads
   * @param channels width of a head
   * @param dropout of the attention weights and of each layer's result
   */
  public record Encoder(
      @JsonProperty(value = "layers", required = true) int layers,
      @JsonProperty(value = "selected", required = true) int selected,
      @JsonProperty(value = "heads", required = true) int heads,
      @JsonProperty(value = "channels", required = true) int channels,
      @JsonProperty(value = "dropout", required = true) double dropout) {
    /** Checks the sizes. */
    public Encoder {
      positive("encoder.layers", layers);
      positive("encoder.selected", selected);
      positive("encoder.heads", heads);
      positive("encoder.channels", channels);
      probability("encoder.dropout", dropout);
      if (layers < selected) {
        throw new IllegalArgumentException(
            "encoder.layers must be at least encoder.selected, " + selected + ", but is " + layers);
      }
    }

    /** @return width of a layer */
    public int width() {
      return heads * channels;
    }

    /**
     * Which layers are pooled: evenly spaced and with the last one, but for the full-size model's own selection.
     *
     * @return layer numbers counted from 1, ascending
     */
    public int[] selectedLayers() {
      if (layers == 10 && selected == SELECTED_OF_TEN.length) {
        return SELECTED_OF_TEN.clone();
      }
      int[] numbers = new int[selected];
      for (int i = 0; i < selected; i++) {
        numbers[i] = selected == 1 ? layers : 1 + (int) Math.round((double) i * (layers - 1) / (selected - 1));
      }
      return numbers;
    }
  }

  /**
   * The latent space.
   *
   * @param slots vectors a molecule is described by
   * @param width of each
   * @param memorySlots positions the decoder's cross-attention sees; with several slots, as many
   * @param dropout of the sampled latent
   */
  public record Latent(
      @JsonProperty(value = "slots", required = true) int slots,
      @JsonProperty(value = "width", required = true) int width,
      @JsonProperty(value = "memory_slots", required = true) int memorySlots,
      @JsonProperty(value = "dropout", required = true) double dropout) {
    /** Checks the sizes. */
    public Latent {
      positive("latent.slots", slots);
      positive("latent.width", width);
      positive("latent.memory_slots", memorySlots);
      probability("latent.dropout", dropout);
      if (slots > 1 && memorySlots != slots) {
        throw new IllegalArgumentException(
            "latent.memory_slots must equal latent.slots, " + slots + ", but is " + memorySlots);
      }
    }

    /** @return scalars of a molecule's latent */
    public int size() {
      return slots * width;
    }
  }

  /**
   * The sequence decoder.
   *
   * @param layers pre-norm transformer layers
   * @param heads attention heads
   * @param hidden width of the layers, a multiple of 8 * heads
   * @param feedForward inner width of the feed-forward part
   * @param maxLength most tokens of a sequence, both ends included
   * @param relativeDistance distance beyond which relative positions are not told apart
   * @param dropout of the attention weights and of each part's result
   */
  public record Decoder(
      @JsonProperty(value = "layers", required = true) int layers,
      @JsonProperty(value = "heads", required = true) int heads,
      @JsonProperty(value = "hidden", required = true) int hidden,
      @JsonProperty(value = "feed_forward", required = true) int feedForward,
      @JsonProperty(value = "max_length", required = true) int maxLength,
      @JsonProperty(value = "relative_distance", required = true) int relativeDistance,
      @JsonProperty(value = "dropout", required = true) double dropout) {
    /** Checks the sizes. */
    public Decoder {
      positive("decoder.layers", layers);
      positive("decoder.heads", heads);
      positive("decoder.hidden", hidden);
      positive("decoder.feed_forward", feedForward);
      positive("decoder.relative_distance", relativeDistance);
      probability("decoder.dropout", dropout);
      if (maxLength < 3) {
        throw new IllegalArgumentException("decoder.max_length must be at least 3, but is " + maxLength);
      }
      if (hidden % (8 * heads) != 0 || hidden / heads > 256) {
        throw new IllegalArgumentException(
            "decoder.hidden must be decoder.heads, "
                + heads
                + ", times a multiple of 8 that is at most 256, but is "
                + hidden);
      }
    }

    /** @return width of a head */
    public int headWidth() {
      return hidden / heads;
    }
  }

  /**
   * What molecules are conditioned on.
   *
   * @param properties which, each once; none for a model without conditions
   * @param width of the vector that stands for them
   * @param dropout share of training molecules whose properties are all hidden from the model, and of the single properties of the others
   */
  public record Condition(
      @JsonProperty(value = "properties", required = true) List<MolecularProperty> properties,
      @JsonProperty(value = "width", required = true) int width,
      @JsonProperty(value = "dropout", required = true) double dropout) {
    /** No conditions. */
    public static final Condition NONE = new Condition(List.of(), 64, 0.1);

    /** Checks the values. */
    public Condition {
      properties = List.copyOf(properties);
      if (new HashSet<>(properties).size() < properties.size()) {
        throw new IllegalArgumentException("condition.properties must differ, but are " + labels(properties));
      }
      positive("condition.width", width);
      probability("condition.dropout", dropout);
    }

    /** @return whether there are any */
    public boolean any() {
      return !properties.isEmpty();
    }

    static List<String> labels(List<MolecularProperty> properties) {
      return properties.stream().map(MolecularProperty::label).toList();
    }
  }

  private static void positive(String name, int value) {
    if (value < 1) {
      throw new IllegalArgumentException(name + " must be at least 1, but is " + value);
    }
  }

  private static void probability(String name, double value) {
    if (!(value >= 0 && value < 1)) {
      throw new IllegalArgumentException(name + " must be at least 0 and below 1, but is " + value);
    }
  }
}
