// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.train.Transfer;

/**
 * Molecules on their way to a device, as {@link VaeBatch#stage} wrote them. Whoever has it closes it, before or after the transfer is
 * taken.
 *
 * @param transfer the tensors
 * @param size molecules
 */
public record StagedBatch(Transfer transfer, int size) implements AutoCloseable {
  @Override
  public void close() {
    transfer.close();
  }
}
