// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.Map;

/**
 * One optimiser step.
 *
 * @param step counted from 1
 * @param totalSteps steps of the run, Long.MAX_VALUE if only time ends it
 * @param progress how much of the run is over, 0..1
 * @param epoch counted from 1
 * @param values the losses by name, "total_loss" first, and "grad_norm"; with a loss scale, the "loss_scale" of the step; where bad steps
 *     are left out, their number so far as "skipped_steps"
 * @param averages means of the values over the last {@value Trainer#AVERAGED_STEPS} steps, including those that were not reported
 * @param learningRate base rate of the step
 * @param samplesPerSecond since the last logged step
 * @param elapsedSeconds time spent in the loop
 * @param logged whether this step is one to log; the others are for progress bars
 */
public record StepReport(
    long step,
    long totalSteps,
    double progress,
    long epoch,
    Map<String, Double> values,
    Map<String, Double> averages,
    double learningRate,
    double samplesPerSecond,
    double elapsedSeconds,
    boolean logged) {}
