// SPDX-License-Identifier: Apache-2.0
/**
 * Models built from {@link io.molfuse.ops}: the molecular variational autoencoder, from molecular graphs to SELFIES tokens,
 * its training task, its generator and its checkpoints.
 */
package io.molfuse.models;
