// SPDX-License-Identifier: Apache-2.0
/**
 * A training loop whose native memory does not grow: parameters, AdamW, learning rate schedules, and checkpoints. Knows nothing of
 * molecules: what is trained comes in as a {@link io.molfuse.train.TrainingTask}.
 *
 * <p>Its parts also serve loops of one's own around any libtorch model:
 *
 * <ul>
 *   <li>{@link io.molfuse.train.Precision}, {@link io.molfuse.train.Autocast} and {@link io.molfuse.train.GradScaler} for mixed precision
 *   <li>{@link io.molfuse.train.BackendSettings} for the switches of libtorch, such as TF32
 *   <li>{@link io.molfuse.train.ParameterGroups}, {@link io.molfuse.train.AdamW}, {@link io.molfuse.train.LearningRates},
 *       {@link io.molfuse.train.GradientAccumulator} and {@link io.molfuse.train.WeightAverage} for the step
 *   <li>{@link io.molfuse.train.Checkpoints} to go on after an interruption, and {@link io.molfuse.train.Safetensors#load} for the
 *       weights of other programs
 *   <li>{@link io.molfuse.train.Checkpointing} to trade time for memory
 *   <li>data sets, samplers and a {@link io.molfuse.train.DataLoader} with threads of its own; page-locked buffers and a
 *       {@link io.molfuse.train.StagingRing} that copies to a device beside the model
 *   <li>{@link io.molfuse.train.PerformanceMonitor} and {@link io.molfuse.train.BatchSizeFinder}
 *   <li>{@link io.molfuse.train.NanGuard}, {@link io.molfuse.train.EarlyStopping} and {@link io.molfuse.train.MovingAverages} for what
 *       goes on beside the step, {@link io.molfuse.train.TensorBoardWriter} for curves of it, and {@link io.molfuse.train.StopOnExit} for
 *       Ctrl-C
 * </ul>
 */
package io.molfuse.train;
