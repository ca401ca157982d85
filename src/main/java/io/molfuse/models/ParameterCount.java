// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

/**
 * Trainable scalars of a model.
 *
 * @param encoder of the graph transformer layers
 * @param latent of mean, log-variance and the decoder's memory
 * @param condition of what properties add to these; 0 without conditions
 * @param decoder of embeddings, positions, layers and vocabulary projection
 */
public record ParameterCount(long encoder, long latent, long condition, long decoder) {
  static ParameterCount of(ModelConfig config, int vocabularySize) {
    return new ParameterCount(encoder(config.encoder()), latent(config), condition(config), decoder(config.decoder(), vocabularySize));
  }

  /** @return the sum */
  public long total() {
    return encoder + latent + condition + decoder;
  }

  private static long encoder(ModelConfig.Encoder config) {
    long width = config.width();
    long count = 0;
    for (int i = 0; i < config.layers(); i++) {
      // Query, key, value and skip connection; batch norm.
      count += linear(i == 0 ? ModelConfig.NODE_FEATURES : width, 4 * width) + norm(width);
    }
    return count;
  }

  private static long latent(ModelConfig config) {
    long pooled = (long) config.encoder().selected() * config.encoder().width();
    ModelConfig.Latent latent = config.latent();
    long hidden = config.decoder().hidden();
    long memory = linear(latent.width(), latent.slots() == 1 ? hidden * latent.memorySlots() : hidden);
    return 2 * linear(pooled, latent.size()) + memory;
  }

  private static long condition(ModelConfig config) {
    if (!config.condition().any()) {
      return 0;
    }
    long width = config.condition().width();
    // Slope, offset and what stands for an unknown value.
    long properties = 3 * config.condition().properties().size() * width;
    return properties + linear(width, width) + 2 * linear(width, config.latent().size()) + linear(width, config.decoder().hidden());
  }

  private static long decoder(ModelConfig.Decoder config, long vocabularySize) {
    long hidden = config.hidden();
    // Self-attention and cross-attention: query, key, value and result each.
    long layer = 3 * norm(hidden) + 8 * linear(hidden, hidden) + linear(hidden, config.feedForward()) + linear(config.feedForward(), hidden);
    long relative = (config.layers() - 1L) * config.heads() * (2L * config.relativeDistance() + 1);
    long embeddings = (vocabularySize + config.maxLength()) * hidden;
    return embeddings + config.layers() * layer + relative + norm(hidden) + linear(hidden, vocabularySize);
  }

  private static long linear(long in, long out) {
    return in * out + out;
  }

  /** Weight and bias. */
  private static long norm(long width) {
    return 2 * width;
  }
}
