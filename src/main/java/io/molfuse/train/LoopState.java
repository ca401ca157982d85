// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonProperty;

/**
 * What the parts of a {@link Trainer} remember beside {@link TrainingState}, for checkpoints.
 *
 * @param scaler the loss scale; null without one
 * @param averages the values that the means in reports are of
 * @param stopping how far patience is; null without early stopping
 * @param position the batch that comes next, as a {@link DataLoader} counts
 */
public record LoopState(
    @JsonProperty("scaler") GradScaler.State scaler,
    @JsonProperty("averages") MovingAverages.State averages,
    @JsonProperty("stopping") EarlyStopping.State stopping,
    @JsonProperty("position") DataLoader.Position position) {}
