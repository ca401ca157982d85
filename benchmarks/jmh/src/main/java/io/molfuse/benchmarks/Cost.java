// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

/**
 * The least that must be done for a result, whatever does it: bytes read from memory and written to it if every input is read once in
 * each direction that needs it and every result written once, and operations (multiplications plus additions) of matrix products. A
 * benchmark's floor is the larger of bytes over the copy bandwidth and operations over the multiply-add rate of its type. All cost
 * models are here. Sizes are those of the operators' contracts; {@code size} is the bytes of an element.
 *
 * @param bytes 0 where memory is no bound
 * @param operations 0 where arithmetic is none
 */
record Cost(double bytes, double operations) {
  /** Of what neither moves tensors nor multiplies matrices. */
  static final Cost NONE = new Cost(0, 0);

  /**
   * Query, key, value read and out written; backward the first three again and the upstream gradient read, three gradients written. A
   * bias is read twice, its gradient written once. Two products forward, five backward.
   *
   * @param queries rows of query, over batch and heads
   * @param keys rows of key, over batch and heads
   * @param pairs of a query and a key that it sees, over batch and heads
   * @param bias elements of the additive bias, 0 without
   */
  static Cost attention(Pass pass, double queries, double keys, double pairs, int width, double bias, int size) {
    double forward = 2 * queries + 2 * keys;
    double backward = 3 * queries + 4 * keys;
    return pass == Pass.FORWARD
        ? new Cost(size * (forward * width + bias), 4 * pairs * width)
        : new Cost(size * ((forward + backward) * width + 3 * bias), 14 * pairs * width);
  }

  /** As attention, over edges instead of pairs. */
  static Cost graphAttention(Pass pass, double nodes, double edges, double width, int size) {
    return pass == Pass.FORWARD
        ? new Cost(size * 4 * nodes * width, 4 * edges * width)
        : new Cost(size * 11 * nodes * width, 14 * edges * width);
  }

  /** The logits of the counted tokens read, the gradient of all written. */
  static Cost vaeLoss(Pass pass, double counted, double tokens, double classes, int size) {
    return new Cost(size * classes * (pass == Pass.FORWARD ? counted : counted + tokens), 0);
  }

  /** One product forward, two backward over the counted tokens; hidden states and weight read, their gradients written. */
  static Cost linearVaeLoss(Pass pass, double counted, double tokens, double classes, double width, int size) {
    return pass == Pass.FORWARD
        ? new Cost(size * width * (counted + classes), 2 * counted * classes * width)
        : new Cost(size * width * (counted + tokens + 2 * classes), 6 * counted * classes * width);
  }

  /** Each layer read forward, its gradient written backward; the pooled rows are written and their gradient read. */
  static Cost latentConcat(Pass pass, double layers, double nodes, double graphs, double width, int size) {
    return new Cost((pass == Pass.FORWARD ? 1 : 2) * size * layers * width * (nodes + graphs), 0);
  }

  /**
   * Training with a skip connection: both inputs read, their sum written and read again, since its statistics are needed first, the
   * result written; backward the sum and the upstream gradient read twice, one gradient written, which is that of both inputs.
   */
  static Cost encoderEpilogue(Pass pass, double nodes, double width, int size) {
    return new Cost((pass == Pass.FORWARD ? 5 : 10) * size * nodes * width, 0);
  }

  /** Three tensors forward, four backward. */
  static Cost reparameterize(Pass pass, double elements, int size) {
    return new Cost((pass == Pass.FORWARD ? 3 : 7) * size * elements, 0);
  }

  /** Clipping reads the gradients; AdamW reads parameters, gradients and two moments and writes all but the gradients. All f32. */
  static Cost clipAndAdamW(double parameters) {
    return new Cost(8 * 4 * parameters, 0);
  }

  /**
   * A training step of the molecular VAE: three products for each linear map and the attention of encoder and decoder, over the
   * tokens that count for the loss; and the optimizer's bytes.
   *
   * @param linear rows times inputs times outputs, summed over the linear maps
   * @param attention pairs times width, summed over the attentions
   */
  static Cost trainingStep(double linear, double attention, double parameters) {
    return new Cost(clipAndAdamW(parameters).bytes, 6 * linear + 14 * attention);
  }
}
