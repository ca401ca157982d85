// SPDX-License-Identifier: Apache-2.0
/**
 * A training loop whose native memory does not grow: parameters, AdamW, learning rate schedules, and checkpoints; data sets, samplers
 * and a {@link io.molfuse.train.DataLoader} with threads of its own; page-locked buffers and a {@link io.molfuse.train.StagingRing} that
 * copies to a device beside the model; a {@link io.molfuse.train.PerformanceMonitor} and a {@link io.molfuse.train.BatchSizeFinder}.
 * Knows nothing of molecules: what is trained comes in as a {@link io.molfuse.train.TrainingTask}.
 */
package io.molfuse.train;
