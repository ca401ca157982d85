// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.junit.jupiter.api.extension.AfterAllCallback;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/** Runs a test class's operators on one thread: its models are too small to gain from more, and a busy machine punishes them. */
public final class OneThread implements BeforeAllCallback, AfterAllCallback {
  private int before;

  @Override
  public void beforeAll(ExtensionContext context) {
    before = Threads.count();
    Threads.set(1);
  }

  @Override
  public void afterAll(ExtensionContext context) {
    Threads.set(before);
  }
}
