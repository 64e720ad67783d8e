# Defaults of every profile, read after it: a profile states only what differs. As published, where the paper says. Every
# variable can also be set from the environment, which comes first. Relative paths start at the repository's root.

# The protocol that is not the profile's own has a result folder of its own.
: "${RESULT_DIR:=$ROOT/results$([ "$PROTOCOL" = "$OWN_PROTOCOL" ] || echo "/protocol-$PROTOCOL")}"

# Hardware and chance
: "${DEVICE:=auto}"
: "${SEED:=0}"
: "${WORKERS:=4}" # processes that decode pictures
: "${PRECISION:=fp32}" # of evaluations; gradients are always fp32
: "${BATCH_SIZE:=16}" # pairs in a batch of the gradient pass

# Data (layouts: data/README.md)
: "${METADATA_DIR:=$DATA_DIR/laion/metadata}" # LAION-400M's parquet files, for scripts/download_laion400m.sh
: "${LAION_DIR:=$DATA_DIR/laion/laion400m}" # shards
: "${TAR_DIR:=$DATA_DIR/tar_files}" # forget sets
: "${IMAGE_DIR:=$DATA_DIR/laion/laion400m_obj}" # pictures of the forget sets, to look at
: "${KNOWN_NAMES:=}" # file of names: the longest of these in a caption wins
: "${TRAIN_DATA:=$LAION_DIR/00000.tar}" # retain set
: "${VAL_DATA:=$DATA_DIR/celeba}"
: "${IMAGENET_VAL:=$DATA_DIR/ImageNet/val}"
: "${IMAGENET_SHARE:=1}" # fraction of its pictures, drawn by SEED
: "${MAX_COUNT:=500}" # pairs in a forget set, at most
: "${MIA_DATA:=$DATA_DIR/cc3m/00000.tar}" # pairs of another corpus: membership by the published rules needs it
: "${MAX_FORGET:=0.02}" # forget accuracy up to which a name counts as forgotten (ours)
: "${FORGET_SIGMAS:=3.5}" # and standard deviations by which its margins must lie below 0

# Download, by img2dataset
: "${DISTRIBUTOR:=multiprocessing}" # or pyspark, ray
: "${PROCESSES:=16}"
: "${THREADS:=128}" # connections of each process
: "${IMAGE_SIZE:=256}" # pixels
: "${RETRIES:=2}"
: "${TIMEOUT:=10}" # seconds

# CLIP
: "${PRETRAINED:=}" # open_clip tag or weight file
: "${CLIP_MODEL_ID:=}" # a Hugging Face CLIP, used instead of MODEL
: "${TRACE:=0}" # retained pictures of each task that are scored at every candidate, for complete trade-off plots

# Baselines on CLIP
: "${METHODS:=ft ga gaft salun ssd}" # also raw, ga_o, gaft_o, salun_o, ssd_o
: "${COMPARE_NAMES=}" # the baselines run on these of NAMES; empty: on all
: "${SETTINGS_FROM=}" # table.csv of an earlier comparison: use the settings it chose; empty: search LR and SELECTION
# Learning rates: the published one, or a grid, which grows while its first or last is the best.
: "${LR:=$([ "$PROTOCOL" = paper ] && echo 1e-7 || echo 1e-7 3.2e-7 1e-6 3.2e-6 1e-5)}"
: "${SELECTION:=10}" # selection weights of ssd
: "${EPOCHS:=10}"
: "${FORGET_EPOCHS:=10}" # of ga, whose passes see the forget set alone

# Several names at once
: "${MULTI_PART=${MULTI_METHOD:-}}" # ends the names of the result folders: a method that the user chose has its own
: "${MULTI_METHOD:=slug}" # slug_w: preconditioned steps; slug_ws: preconditioned steps that spare the other names
: "${MULTI_WAYS:=sum joint assigned}" # how edits of a pipeline are put together
: "${MULTI_RIVALS=uce speed oce}" # baselines of a pipeline that forget several concepts at once; empty: none
: "${TOKEN_RETAIN_LR:=1e-5}" # of all weights in training on retained pictures
: "${TOKEN_WORDS:=}" # CSV of other words for TOKEN_STYLES and TOKEN_OBJECTS: name, alias, language
: "${MULTI_FRONTS:=1}" # Pareto fronts of each encoder that are searched
: "${MULTI_IMAGENET_SHARE:=1}" # IMAGENET_SHARE where objects are forgotten: 5% has two or three pictures of each

# Study of the paper's claims, and durability of the edits
: "${STUDY_NAMES:=}" # in the study beside NAMES
: "${STUDY_JOBS:=1}" # processes, which share the cores
: "${LASTING_JOBS:=1}" # the same for run_lasting.sh
: "${RECORDS:=$RESULT_DIR/clip}" # folder of the edits that run_lasting.sh tests
: "${GOLD=}" # folders of models that never saw some of the names, beside which run_lasting.sh tests the edits
: "${ALIASES:=}" # CSVs of synonyms, with the columns name, alias
: "${RELEARN_LR:=1e-5}" # learning rate of relearning

# Stable Diffusion
: "${CANVAS_DIR:=$DATA_DIR/UnlearnCanvas}"
: "${CLASSIFIERS:=$CANVAS_DIR/classifiers}"
: "${NEVER_LEARNED:=}" # JSON of the prompts that are left out of the evaluation
: "${STYLES=$CANVAS_STYLES}" # forgotten one by one; empty: none
: "${OBJECTS=$CANVAS_OBJECTS}"
: "${SD_TAR_DIR:=$TAR_DIR/generated}" # forget sets of SD_CONCEPTS, apart from those of real pictures
: "${SD_IMAGE_DIR:=$IMAGE_DIR/generated}"
: "${SD_ALL_METHODS:=slug slug_w slug_w_rounds uce rece speed oce esd}" # of committed runs
: "${SD_METHODS:=slug}" # of slug, slug_w, slug_ws, each also with _rounds (several layers), and uce, esd, rece, speed, oce
: "${SD_ROUNDS:=3}" # layers of the _rounds methods
: "${SD_JOBS:=1}" # processes, each with a part of the concepts
: "${TOKEN_STYLES:=$STYLES}" # run_tokens.sh tries to bring these back
: "${TOKEN_OBJECTS:=$OBJECTS}"

# Vision-language models
: "${VLM_NAMES:=$NAMES}"
: "${QUESTIONS:=$DATA_DIR/vlm/questions.jsonl}" # pictures of the names with questions: data/README.md
: "${VLM_METHOD:=slug}" # or slug_w: preconditioned steps
: "${VLM_UTILITY:=}" # folders or files of MME, GQA, MMBench, asked as well
: "${VLM_FACTORS:=}" # multiples of each step that are scored as well, for the curve of forgetting against utility
: "${VLM_JOBS:=1}" # processes, each with one name at a time and a model of its own
: "${ANSWER_BATCH:=16}" # questions answered at once
: "${ANSWER_TOKENS:=64}" # tokens of an answer, at most
