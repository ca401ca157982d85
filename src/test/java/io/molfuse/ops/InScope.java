// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import org.bytedeco.javacpp.PointerScope;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;

/** Gives every test a scope, so that its tensors do not wait for the garbage collector. */
abstract class InScope {
  private PointerScope scope;

  @BeforeEach
  final void openScope() {
    scope = new PointerScope();
  }

  @AfterEach
  final void closeScope() {
    scope.close();
  }
}
