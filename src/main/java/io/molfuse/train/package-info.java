// SPDX-License-Identifier: Apache-2.0
/**
 * A training loop whose native memory does not grow: parameters, AdamW, learning rate schedules, batch sources read ahead by a
 * background thread, and checkpoints. Knows nothing of molecules: what is trained comes in as a
 * {@link io.molfuse.train.TrainingTask}.
 */
package io.molfuse.train;
