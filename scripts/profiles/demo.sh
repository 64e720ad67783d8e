# The embedded world, EmojiCanvas, with mini-CLIP: runs on 2 CPU cores, off the network. Every variable can be set from the
# environment, e.g. NAMES='Santa_Claus' bash scripts/run_demo.sh
# Expected on 2 cores: set-up 2 minutes, the demo about 11. Figures: results/demo/report.md.
: "${DATA_DIR:=$ROOT/data/demo}"
: "${RESULT_DIR:=$ROOT/results}"

: "${MODEL:=local-dir:$ROOT/data/models/mini-clip}"
: "${PRETRAINED:=}"
: "${CLIP_MODEL_ID:=}" # a Hugging Face CLIP instead of MODEL
: "${NAMES:=$(sed 's/#.*//' "$ROOT/data/emoji/forget_names.txt")}" # forget names, underscores for spaces
: "${MULTI_METHOD:=slug_ws}" # of the names that are forgotten together, whitened gradients that spare the others; slug: as published
: "${MULTI_FRONTS:=2}" # Pareto fronts of each encoder that are searched for them; 1: as published
: "${MULTI_NAMES:=Elephant Frog Lion Owl Police_Officer Dove}" # forgotten together, two or more
: "${MULTI_OBJECTS=person_swimming ribbon tanabata_tree}" # the same of objects; empty: none
: "${MULTI_MIXTURE=Lion ribbon Owl tanabata_tree}" # and of both
: "${MULTI_IMAGENET_SHARE:=1}" # IMAGENET_SHARE where objects are forgotten
: "${STUDY_NAMES:=$(sed 's/#.*//' "$ROOT/data/emoji/study_names.txt")}" # beside NAMES in the study of the claims
: "${STUDY_JOBS:=2}" # processes that do its runs at once, each with its share of the cores
: "${LASTING_JOBS:=2}" # the same of run_lasting.sh, each with names of its own

: "${METADATA_DIR:=$DATA_DIR/laion/metadata}" # LAION-400M's own parquet files, for scripts/download_laion400m.sh
: "${LAION_DIR:=$DATA_DIR/laion/laion400m}"
: "${TAR_DIR:=$DATA_DIR/tar_files}"
: "${IMAGE_DIR:=$DATA_DIR/laion/laion400m_obj}"
: "${KNOWN_NAMES:=$DATA_DIR/names.txt}" # the longest of these in a caption wins
: "${TRAIN_DATA:=$LAION_DIR/00000.tar}"
: "${VAL_DATA:=$DATA_DIR/celeba}"
: "${IMAGENET_VAL:=$DATA_DIR/ImageNet/val}"
: "${IMAGENET_SHARE:=1}" # part of its pictures, drawn by SEED
: "${MAX_COUNT:=500}" # pairs of a forget set, at most

: "${DISTRIBUTOR:=multiprocessing}" # of img2dataset: or pyspark, ray
: "${PROCESSES:=16}"
: "${THREADS:=128}" # connections a process
: "${IMAGE_SIZE:=256}"
: "${RETRIES:=2}"
: "${TIMEOUT:=10}" # seconds

: "${PIPELINE:=$DATA_DIR/models/mini-sd}" # put together from data/models/ by src/demo/convert_sd.py
: "${SD_CLIP:=$DATA_DIR/models/mini-clip-hf}" # the CLIP of its text tower
: "${CANVAS_DIR:=$DATA_DIR/UnlearnCanvas}"
: "${CLASSIFIERS:=$ROOT/data/models/uncanvas}"
: "${NEVER_LEARNED:=$ROOT/data/models/mini-sd/training.json}" # lists cells that mini-SD was not trained on: none is asked for
: "${CANVAS_STYLES:=Noto Blob Twemoji Fluent OpenMoji EmojiOne}" # that are asked for, each with each of CANVAS_OBJECTS
: "${CANVAS_OBJECTS:=airplane banana bell bicycle cactus crown guitar key rocket skull}"
: "${STYLES=$CANVAS_STYLES}" # that are forgotten, one by one; empty: none
: "${OBJECTS=$CANVAS_OBJECTS}"
: "${SD_CONCEPTS:=mushroom}" # whose forget set the pipeline makes itself
: "${SD_TAR_DIR:=$TAR_DIR/generated}" # apart from those of real pictures
: "${SD_IMAGE_DIR:=$IMAGE_DIR/generated}"
: "${SD_OTHERS:=airplane banana crown skull}" # that must stay where these are forgotten
: "${DENOISING_STEPS:=20}"
: "${GUIDANCE:=1}" # up to 1: none, at half the time; mini-SD draws what it is asked for without
: "${GENERATE_BATCH:=32}" # pictures made at once
: "${SD_METHODS:=slug_w slug_w_rounds uce esd}" # of slug, slug_w and slug_ws (whitened gradients), each with _rounds (several layers), uce, esd
: "${SD_ROUNDS:=3}"
: "${SD_JOBS:=2}" # processes that search at once, each a part of the concepts
: "${MULTI_STYLES:=Noto EmojiOne Blob}" # forgotten together by run_uncanvas_multi.sh
: "${MULTI_SD_OBJECTS:=bell rocket skull}"
: "${TOKEN_STYLES:=Noto EmojiOne}" # that run_tokens.sh looks for again
: "${TOKEN_OBJECTS:=bell rocket skull}"

: "${VLM:=$DATA_DIR/models/mini-llava}" # put together from data/models/ by src/demo/convert_vlm.py
: "${VLM_CLIP:=$DATA_DIR/models/mini-clip-hf}" # the CLIP of its vision tower
: "${VLM_NAMES:=Elephant Frog Lion Owl Police_Officer}"
: "${QUESTIONS:=$DATA_DIR/vlm/questions.jsonl}"
: "${VLM_METHOD:=slug_w}" # slug steps along the gradient as published, slug_w along the whitened one
: "${VLM_UTILITY:=}" # public sets that are asked besides
: "${VLM_FACTORS:=}" # multiples of each step that are scored besides, for the curve of what more forgetting costs
: "${VLM_JOBS:=2}" # processes that search at once, a name at a time each
: "${ANSWER_BATCH:=64}" # questions answered at once
: "${ANSWER_TOKENS:=16}" # of an answer, at most

: "${DEVICE:=auto}"
: "${SEED:=0}"
: "${WORKERS:=2}"
: "${PRECISION:=fp32}" # of evaluations; gradients are always fp32
: "${BATCH_SIZE:=16}"
: "${TRACE:=0}" # retain pictures a task scored at every candidate, so that trade-off plots show them all

: "${METHODS:=ft ga gaft salun ssd}" # baselines; also raw, ga_o, gaft_o, salun_o, ssd_o
: "${COMPARE_NAMES=Lion tanabata_tree}" # those of NAMES that the baselines are run on; empty: all
: "${SETTINGS_FROM=$ROOT/results/demo/table.csv}" # take what was chosen there for them; empty: search LR and SELECTION
: "${LR:=3.2e-5 1e-4 3.2e-4}" # half decades; more are tried where the best is the first or the last
: "${SELECTION:=3.2 10 32}" # selection weights of ssd
: "${EPOCHS:=3}"
: "${FORGET_EPOCHS:=10}" # of ga, whose passes see the forget set alone

: "${RECORDS:=$RESULT_DIR/clip}" # the edits that run_lasting.sh tests; results/demo: the committed ones
: "${ALIASES:=data/emoji/concepts.csv data/emoji/synonyms.csv}" # CSVs of other names for them
: "${RELEARN_LR:=1e-4}" # a tenth of what mini-CLIP was trained at
