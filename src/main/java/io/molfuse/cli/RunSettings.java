// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.annotation.JsonProperty;

/**
 * The data that a run was started with, kept in its checkpoints so that it can be resumed with the same.
 *
 * @param molecules usable molecules in it
 * @param dataHash their {@link io.molfuse.chem.MoleculeDataset#fingerprint}
 */
record RunSettings(@JsonProperty("molecules") int molecules, @JsonProperty("data_hash") String dataHash) {}
