// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import jdk.jfr.Category;
import jdk.jfr.DataAmount;
import jdk.jfr.Description;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;
import jdk.jfr.Timespan;

/** A step in a flight recording. Committed when its times are known, which on a GPU is some steps later. */
@Name("io.molfuse.TrainingStep")
@Label("Training Step")
@Description("Where the time of an optimiser step went")
@Category("molfuse")
@StackTrace(false)
final class StepEvent extends Event {
  @Label("Step")
  long step;

  @Label("Samples")
  long samples;

  @Label("Time")
  @Description("From the end of the step before")
  @Timespan(Timespan.NANOSECONDS)
  long time;

  @Label("Load")
  @Description("Waiting for batches")
  @Timespan(Timespan.NANOSECONDS)
  long load;

  @Label("Transfer")
  @Timespan(Timespan.NANOSECONDS)
  long transfer;

  @Label("Forward")
  @Timespan(Timespan.NANOSECONDS)
  long forward;

  @Label("Backward")
  @Timespan(Timespan.NANOSECONDS)
  long backward;

  @Label("Optimizer")
  @Timespan(Timespan.NANOSECONDS)
  long optimizer;

  @Label("Device Memory")
  @Description("In use by tensors, -1 if that is not known")
  @DataAmount
  long deviceMemory;

  @Label("Process Memory")
  @DataAmount
  long processMemory;
}
