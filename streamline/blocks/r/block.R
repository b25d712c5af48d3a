# Run a block: read its inputs and variables, load its file, call its function, and write the result.
# The argument is a folder with call.rds, a list of
#   file       the block's file
#   functions  the names of the function; the file must define exactly one of them
#   inputs     the files of the inputs
#   uuids      the upstream block of each input
#   gates      whether an input is only a condition
#   variables  the list global_vars
#   lenient    whether to return NULL for a value that cannot be stored
# Writes result.rds, or error.rds: a list of kind (user: the block's code failed; file: the file is not a valid block;
# value: the returned value cannot be stored), message, line and trace.

streamline_block <- function() {
  rm("streamline_block", envir = globalenv())
  folder <- commandArgs(trailingOnly = TRUE)[[1L]]
  call <- readRDS(file.path(folder, "call.rds"))
  options(keep.source = TRUE, keep.source.pkgs = FALSE, warn = 1L, stringsAsFactors = FALSE, digits.secs = 6L)
  position <- NULL # srcref of the top-level statement that is being evaluated

  save <- function(value, name) {
    # Write and rename, so that an existing file is complete; readable by the owner only.
    mask <- Sys.umask("077")
    on.exit(Sys.umask(mask))
    path <- file.path(folder, name)
    saveRDS(value, paste0(path, ".part"), version = 2L, compress = FALSE)
    file.rename(paste0(path, ".part"), path)
  }

  first_line <- function(expression) {
    text <- tryCatch(deparse(expression, width.cutoff = 200L, nlines = 1L), error = function(e) "?")
    if (nchar(text) > 200L) paste0(substr(text, 1L, 200L), " ...") else text
  }

  location <- function(reference) {
    # Return file, line and text of a srcref, or NULL.
    if (is.null(reference)) return(NULL)
    file <- attr(reference, "srcfile")
    if (is.null(file) || is.null(file$filename) || !nzchar(file$filename)) return(NULL)
    # The first number ignores #line directives.
    line <- as.integer(reference)[[1L]]
    text <- tryCatch(trimws(getSrcLines(file, line, line)), error = function(e) "")
    list(file = file$filename, line = line, text = if (length(text)) text[[1L]] else "")
  }

  fail <- function(kind, message, line = NA_integer_, trace = character()) {
    save(list(kind = kind, message = enc2utf8(message), line = line, trace = enc2utf8(trace)), "error.rds")
    quit(save = "no", status = 1L, runLast = FALSE)
  }

  fail_with_trace <- function(condition, calls) {
    references <- Filter(Negate(is.null), lapply(calls, attr, "srcref"))
    if (!length(references) && !is.null(position)) references <- list(position)
    own <- Filter(function(reference) identical(attr(reference, "srcfile")$filename, call$file), references)
    deepest <- if (length(own)) location(own[[length(own)]])$line else NA_integer_
    if (length(references) > 30L) references <- c(references[1:5], references[length(references) - 24:0])
    locations <- Filter(Negate(is.null), lapply(references, location))
    trace <- vapply(locations, function(at) sprintf("%s:%d\t%s", at$file, at$line, at$text), "")
    where <- conditionCall(condition)
    message <- conditionMessage(condition)
    internal <- c("eval", "withVisible", "doTryCatch", "withCallingHandlers")
    if (!is.null(where) && !(first_line(where[[1L]]) %in% internal)) {
      message <- sprintf("Error in %s: %s", first_line(where), message)
    } else {
      message <- paste0("Error: ", message)
    }
    fail("user", message, deepest, as.character(trace))
  }

  guarded <- function(code) {
    calls <- list()
    # The handler only records the calls: after infinite recursion the stack has no space for more.
    tryCatch(withCallingHandlers(code, error = function(e) calls <<- sys.calls()),
             error = function(e) fail_with_trace(e, calls))
  }

  # Vectors, lists of them and data.frames can be stored. Other values fail with the path of the element.
  refuse <- function(x, path) {
    stop(structure(
      class = c("streamline_refused", "error", "condition"),
      list(
        message = sprintf(
          "%s is %s, which cannot be stored; return a data.frame, a list or a vector",
          if (nzchar(path)) sprintf("the returned value's %s", path) else "the returned value",
          if (is.object(x)) sprintf("of class %s", class(x)[[1L]]) else sprintf("of type %s", typeof(x))
        ),
        call = NULL
      )
    ))
  }
  kept <- c("names", "levels", "tzone", "units")
  known <- c("factor", "Date", "POSIXct", "difftime", "integer64")
  clean <- function(x, path) {
    if (is.null(x)) return(NULL)
    if (inherits(x, "POSIXlt")) x <- as.POSIXct(x)
    if (inherits(x, "numeric_version")) x <- as.character(x)
    if (is.table(x)) x <- as.data.frame(x)
    if (length(dim(x)) == 2L && !is.data.frame(x) && is.atomic(x)) x <- as.data.frame(x)
    if (is.data.frame(x)) {
      rows <- nrow(x)
      names <- names(x)
      x <- unclass(x)
      columns <- lapply(seq_along(x), function(i) {
        inside <- sprintf("%s$%s", path, names[[i]])
        column <- x[[i]]
        if (length(dim(column)) == 2L) refuse(column, inside)
        if (is.list(column) && !inherits(column, "POSIXlt")) {
          lapply(seq_along(column), function(j) clean(column[[j]], sprintf("%s[[%d]]", inside, j)))
        } else {
          column <- clean(column, inside)
          attr(column, "names") <- NULL
          column
        }
      })
      return(structure(columns, names = enc2utf8(as.character(names)), class = "data.frame",
                       row.names = .set_row_names(rows)))
    }
    if (!is.null(dim(x)) && length(dim(x)) != 1L) refuse(x, path)
    if (is.list(x)) {
      names <- names(x)
      class <- class(x)
      whole <- x
      x <- unclass(x)
      result <- lapply(seq_along(x), function(i) {
        inside <- if (is.null(names) || !nzchar(names[[i]])) sprintf("[[%d]]", i) else sprintf("$%s", names[[i]])
        # Inside an object with a class, such as a fitted model, the message names the object, not the element.
        tryCatch(clean(x[[i]], paste0(path, inside)), streamline_refused = function(e) {
          if (is.object(whole)) refuse(whole, path) else stop(e)
        })
      })
      if (!is.null(names)) names(result) <- enc2utf8(names)
      return(result)
    }
    if (!(typeof(x) %in% c("logical", "integer", "double", "character", "raw"))) refuse(x, path)
    attributes <- attributes(x)
    class <- intersect(class(x), c(known, "ordered"))
    x <- as.vector(unclass(x))
    for (name in intersect(kept, names(attributes))) attr(x, name) <- attributes[[name]]
    if (is.character(x)) x[] <- enc2utf8(x)
    if (length(intersect(class, known))) class(x) <- class
    x
  }

  for (i in seq_along(call$inputs)) {
    assign(paste0("df_", i), readRDS(call$inputs[[i]]), envir = globalenv())
  }
  if (is.list(call$inputs)) unlink(unlist(call$inputs))
  assign("global_vars", call$variables, envir = globalenv())

  statements <- tryCatch(parse(call$file, keep.source = TRUE, encoding = "UTF-8"), error = function(e) {
    line <- regmatches(conditionMessage(e), regexec(":([0-9]+):[0-9]+: ", conditionMessage(e)))[[1L]]
    fail("file", paste0("R syntax error: ", conditionMessage(e)),
         if (length(line) == 2L) as.integer(line[[2L]]) else NA_integer_)
  })
  references <- attr(statements, "srcref")
  guarded(for (i in seq_along(statements)) {
    position <- references[[i]]
    eval(statements[[i]], globalenv())
  })
  position <- NULL

  is_defined <- function(name) exists(name, envir = globalenv(), mode = "function", inherits = FALSE)
  defined <- Filter(is_defined, call$functions)
  if (!length(defined)) {
    others <- Filter(function(name) is.function(get(name, globalenv())), ls(globalenv()))
    fail("file", sprintf("the file defines no function %s%s", paste0(call$functions, "()", collapse = " or "),
                    if (length(others)) sprintf("; it defines %s", paste(others, collapse = ", ")) else ""))
  }
  if (length(defined) > 1L) {
    fail("file", sprintf("the file defines %s: keep one of them", paste0(defined, "()", collapse = " and ")))
  }
  user <- get(defined, globalenv(), mode = "function")

  # One argument per upstream block, in their order; a parameter named like a block gets that block's output.
  parameters <- names(formals(args(user)))
  arguments <- paste0("df_", seq_along(call$inputs))[seq_along(call$inputs)]
  names(arguments) <- as.character(call$uuids)
  named <- intersect(setdiff(parameters, "..."), names(arguments))
  rest <- arguments[!(names(arguments) %in% named)]
  if (!("..." %in% parameters)) {
    positional <- length(setdiff(parameters, named))
    gates <- names(arguments)[as.logical(unlist(call$gates))]
    if (length(rest) > positional) rest <- rest[!(names(rest) %in% gates)]
    if (length(rest) > positional) {
      fail("file", sprintf("%s() takes %d argument%s, but the block has %d upstream block%s: %s",
                           defined, length(parameters), if (length(parameters) == 1L) "" else "s",
                           length(arguments), if (length(arguments) == 1L) "" else "s",
                           paste(names(arguments), collapse = ", ")))
    }
  }
  # Pass names, not values, so that tracebacks show `transform(df_1)` and not the data.
  values <- c(lapply(unname(rest), as.name), lapply(arguments[named], as.name))
  value <- guarded(withVisible(eval(as.call(c(as.name(defined), values)), globalenv()))$value)

  cleaned <- tryCatch(clean(value, ""), streamline_refused = function(e) {
    if (isTRUE(call$lenient)) return(NULL)
    fail("value", paste0(defined, "(): ", conditionMessage(e)))
  })
  save(cleaned, "result.rds")
}
invisible(streamline_block())
