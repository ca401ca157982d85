// SPDX-License-Identifier: Apache-2.0
/**
 * Molecules for training: SMILES files, SELFIES, graphs, vocabularies, in-memory data sets, batches and the metrics of
 * generated molecules.
 *
 * <p>Nothing here knows tensors: batches are plain arrays. The flow is {@link io.molfuse.chem.SmilesFile} to
 * {@link io.molfuse.chem.MoleculeParser} and {@link io.molfuse.chem.Selfies}, joined by
 * {@link io.molfuse.chem.MoleculeDataset}, whose {@code collate} fills a {@link io.molfuse.chem.GraphBatch} for the indices
 * of a batch. {@link io.molfuse.chem.MoleculePreparation} does the same work once, for data sets of any size:
 * {@link io.molfuse.chem.MoleculeRecords} reads what it wrote. {@link io.molfuse.chem.GenerationMetrics} judges what a model writes.
 */
package io.molfuse.chem;
