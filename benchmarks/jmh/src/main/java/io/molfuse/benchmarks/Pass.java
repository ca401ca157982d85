// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

/** How far an operator is run. */
enum Pass {
  /** The result alone, of inputs that need gradients: what backward needs is kept. */
  FORWARD("forward"),
  /** The result and the gradients of all inputs that need one. */
  BOTH("forward+backward");

  final String label;

  Pass(String label) {
    this.label = label;
  }
}
