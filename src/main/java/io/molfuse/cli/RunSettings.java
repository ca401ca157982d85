// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.molfuse.train.TrainingConfig;

/**
 * What a run was started with, kept in its checkpoints so that it can be resumed.
 *
 * @param preset name of the preset it came from
 * @param data absolute path of the data file, or null for the bundled molecules
 * @param molecules usable molecules in it
 * @param dataHash their {@link io.molfuse.chem.MoleculeDataset#fingerprint}
 * @param batchSize molecules of a batch
 * @param beta weight of the Kullback-Leibler term
 * @param training how to train
 */
record RunSettings(
    @JsonProperty("preset") String preset,
    @JsonProperty("data") String data,
    @JsonProperty("molecules") int molecules,
    @JsonProperty("data_hash") String dataHash,
    @JsonProperty("batch_size") int batchSize,
    @JsonProperty("beta") double beta,
    @JsonProperty("training") TrainingConfig training) {}
