// SPDX-License-Identifier: Apache-2.0
package io.molfuse;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.Architectures.layeredArchitecture;

import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.junit.AnalyzeClasses;
import com.tngtech.archunit.junit.ArchTest;
import com.tngtech.archunit.lang.ArchRule;
import java.util.concurrent.Executor;

/** The layers: each package uses those below it only. The native half of this test is cmake/check_includes.py. */
@AnalyzeClasses(packages = "io.molfuse", importOptions = ImportOption.DoNotIncludeTests.class)
class ArchitectureTest {
  @ArchTest
  static final ArchRule dependenciesPointDownward =
      layeredArchitecture()
          .consideringOnlyDependenciesInLayers()
          .layer("cli").definedBy("io.molfuse.cli..")
          .layer("models").definedBy("io.molfuse.models..")
          .layer("chem").definedBy("io.molfuse.chem..")
          .layer("train").definedBy("io.molfuse.train..")
          .layer("ops").definedBy("io.molfuse.ops..")
          .layer("presets").definedBy("io.molfuse.presets..")
          .whereLayer("cli").mayNotBeAccessedByAnyLayer()
          .whereLayer("models").mayOnlyBeAccessedByLayers("cli")
          .whereLayer("chem").mayOnlyBeAccessedByLayers("models", "cli")
          .whereLayer("train").mayOnlyBeAccessedByLayers("chem", "models", "cli")
          .whereLayer("ops").mayOnlyBeAccessedByLayers("train", "chem", "models", "cli")
          .whereLayer("presets").mayOnlyBeAccessedByLayers("ops");

  @ArchTest
  static final ArchRule onlyThePresetConfiguresJavaCpp =
      noClasses().that().resideOutsideOfPackage("io.molfuse.presets..")
          .should().dependOnClassesThat().resideInAPackage("org.bytedeco.javacpp.tools..");

  @ArchTest
  static final ArchRule operatorsStartNoThreads =
      noClasses().that().resideInAPackage("io.molfuse.ops..")
          .should().dependOnClassesThat().areAssignableTo(Thread.class)
          .orShould().dependOnClassesThat().areAssignableTo(Executor.class);

  @ArchTest
  static final ArchRule onlyTheCommandLineEndsTheProcessOrPrints =
      noClasses().that().resideOutsideOfPackage("io.molfuse.cli..")
          .should().callMethod(System.class, "exit", int.class)
          .orShould().accessField(System.class, "out");
}
