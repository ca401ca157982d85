// SPDX-License-Identifier: Apache-2.0
package io.molfuse.architecture;

import static com.tngtech.archunit.base.DescribedPredicate.not;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAnyPackage;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.domain.JavaModifier;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.lang.ArchRule;
import io.molfuse.cli.Main;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The layers of DESIGN.md: dependencies point downward only. */
class LayersTest {
  private static final String PRESETS = "io.molfuse.presets..";
  private static final String OPS = "io.molfuse.ops..";
  private static final String TRAIN = "io.molfuse.train..";
  private static final String CHEM = "io.molfuse.chem..";
  private static final String MODELS = "io.molfuse.models..";
  private static final String CLI = "io.molfuse.cli..";
  private static final String BYTEDECO = "org.bytedeco..";
  private static final String JNI = "org.bytedeco.javacpp.annotation..";

  private static JavaClasses all;

  @BeforeAll
  static void importClasses() {
    all = new ClassFileImporter().withImportOption(new ImportOption.DoNotIncludeTests()).importPackages("io.molfuse");
  }

  @Test
  void everyLayerIsThereAndNoOther() {
    TreeSet<String> layers = all.stream()
        .map(type -> type.getPackageName().split("\\."))
        .map(parts -> parts.length > 2 ? parts[2] : "")
        .collect(Collectors.toCollection(TreeSet::new));
    assertThat(layers).containsExactly("chem", "cli", "models", "ops", "presets", "train");
  }

  @Test
  void presetsDependOnBytedecoOnly() {
    check(classes().that().resideInAPackage(PRESETS).should().onlyDependOnClassesThat().resideInAnyPackage(PRESETS, BYTEDECO, "java.."));
  }

  @Test
  void presetsAreTheOnlyPlaceThatKnowsJni() {
    check(noClasses().that().resideOutsideOfPackage(PRESETS).should().dependOnClassesThat().resideInAnyPackage(JNI));
    check(noClasses().that().resideOutsideOfPackages(PRESETS, OPS).should().dependOnClassesThat().resideInAPackage(PRESETS));
    // A native method anywhere else would be a second binding.
    assertThat(
            all.that(not(resideInAnyPackage(PRESETS))).stream()
                .flatMap(type -> type.getMethods().stream())
                .filter(method -> method.getModifiers().contains(JavaModifier.NATIVE)))
        .isEmpty();
  }

  @Test
  void opsDependOnPresetsAndBytedecoOnly() {
    check(classes().that().resideInAPackage(OPS).should().onlyDependOnClassesThat().resideInAnyPackage(OPS, PRESETS, BYTEDECO, "java.."));
  }

  @Test
  void opsNeverStartAThread() {
    check(noClasses().that().resideInAPackage(OPS).should().dependOnClassesThat().areAssignableTo(Thread.class));
    check(noClasses().that().resideInAPackage(OPS).should().dependOnClassesThat().resideInAPackage("java.util.concurrent.."));
  }

  @Test
  void trainKnowsNoMolecule() {
    check(noClasses().that().resideInAPackage(TRAIN).should().dependOnClassesThat()
        .resideInAnyPackage(CHEM, MODELS, CLI, "org.openscience.."));
  }

  @Test
  void chemKnowsNeitherLibtorchNorTheLayersAbove() {
    check(noClasses().that().resideInAPackage(CHEM).should().dependOnClassesThat()
        .resideInAnyPackage(BYTEDECO, PRESETS, OPS, TRAIN, MODELS, CLI));
  }

  @Test
  void modelsDependOnOpsChemAndTrainOnly() {
    check(noClasses().that().resideInAPackage(MODELS).should().dependOnClassesThat().resideInAnyPackage(PRESETS, CLI));
  }

  @Test
  void nothingDependsOnTheCommandLine() {
    // The libraries named are optional dependencies: an application that uses the layers below does not get them.
    check(noClasses().that().resideOutsideOfPackage(CLI).should().dependOnClassesThat()
        .resideInAnyPackage(CLI, "picocli..", "me.tongfei..", "ch.qos.logback.."));
  }

  @Test
  void theJarHoldsItsLicenceAndNoLoggingConfigurationOfOthers() throws URISyntaxException {
    Path classes = Path.of(Main.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    assertThat(classes.resolve("META-INF/LICENSE")).exists();
    assertThat(classes.resolve("META-INF/NOTICE")).exists();
    assertThat(Main.class.getResource("logback.xml")).isNotNull();
    // In the sources, since an older build may have left its copy among the classes.
    for (String name : new String[] {"logback.xml", "logback-test.xml"}) {
      assertThat(Path.of("src/main/resources", name)).doesNotExist();
    }
  }

  @Test
  void layersHaveNoCycles() {
    check(slices().matching("io.molfuse.(*)..").should().beFreeOfCycles());
  }

  @Test
  void operatorFamiliesAreFinalClasses() {
    check(classes().that().resideInAPackage(OPS).and().arePublic().and().areNotEnums().and().areNotInterfaces()
        .should().haveModifier(JavaModifier.FINAL));
  }

  private static void check(ArchRule rule) {
    rule.check(all);
  }
}
